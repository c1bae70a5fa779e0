// What compare puts side by side: which techniques fit, how a report is read, what is written, and the program itself
// on a small model.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "09_combined_3d/comparison/page.h"
#include "09_combined_3d/comparison/write.h"
#include "tests/support/temporary_folder.h"

namespace ninefold::comparison {
namespace {

using nlohmann::json;
using Names = std::vector<std::string>;

Names names_of(const std::vector<Technique>& rows) {
  Names names;
  for (const Technique& row : rows) names.push_back(row.name);
  return names;
}

bool contains(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// What combines dimensions needs ranks for each.
TEST(Techniques, AreThoseThatTheRanksAllow) {
  for (const int ranks : {1, 2, 4, 8, 16}) {
    const TechniqueList list = techniques_on(ranks, {});
    const Names names = names_of(list.rows);
    EXPECT_EQ(names.front(), "serial");
    for (const Technique& row : list.rows) EXPECT_EQ(row.ranks(), row.is_baseline() ? 1 : ranks) << row.name;
    for (const std::string name : {"DDP overlapped", "FSDP (ZeRO-3)", "CP ring zigzag", "MoE FSDP"}) {
      EXPECT_EQ(contains(names, name), ranks >= 2 && (ranks <= 8 || name == "CP ring zigzag")) << name << ranks;
    }
    EXPECT_EQ(contains(names, "HSDP"), ranks == 4 || ranks == 8) << ranks;
    EXPECT_EQ(contains(names, "FSDP x TP"), ranks >= 4) << ranks;
    EXPECT_EQ(contains(names, "PP x FSDP x TP"), ranks >= 8) << ranks;
    EXPECT_EQ(contains(names, "PP x HSDP x TP"), ranks >= 16) << ranks;
  }
  EXPECT_TRUE(techniques_on(2, {}).left_out.empty());
  EXPECT_EQ(techniques_on(3, {.layers = 8}).rows.front().name, "serial");
}

TEST(Techniques, ThatTheModelExcludesAreLeftOutWithAReason) {
  const TechniqueList list = techniques_on(2, {.layers = 2, .heads = 3, .kv_heads = 3, .length = 250});
  std::map<std::string, std::string> reasons;
  for (const Misfit& one : list.left_out) reasons[one.name] = one.reason;
  EXPECT_EQ(reasons["TP"], "kv-heads (3) must be divisible by tp (2)");
  EXPECT_EQ(reasons["PP interleaved"], "layers (2) must be at least the stages (4)");
  EXPECT_EQ(reasons["CP ring"], "length (250) must be divisible by 2 x cp (4)");
  EXPECT_FALSE(contains(names_of(list.rows), "TP"));
  EXPECT_TRUE(contains(names_of(list.rows), "PP 1F1B"));
}

TEST(Techniques, AreChosenByWordsWithTheirBaselines) {
  const std::vector<Technique> rows = techniques_on(2, {}).rows;
  EXPECT_EQ(names_of(select(rows, "zero-1, PP GPipe")), (Names{"serial", "ZeRO-1", "PP GPipe"}));
  EXPECT_EQ(names_of(select(rows, "tp")), (Names{"serial", "TP"})) << "a whole name means that row alone";
  EXPECT_EQ(names_of(select(rows, "moe ep")), (Names{"MoE serial", "MoE EP"}));
  EXPECT_EQ(select(rows, "").size(), rows.size());
  EXPECT_TRUE(contains(sentence_of([&] { select(rows, "ddp,fdsp"); }), "no technique that fits here has 'fdsp'"));
  EXPECT_TRUE(contains(sentence_of([&] { select(rows, "ddp,"); }), "has '' in its name"));
}

TEST(Clusters, GiveTheLinksOfAMeshAlone) {
  const std::vector<Profile> profiles = read_profiles("laptop,ethernet");
  ASSERT_EQ(profiles.size(), 2u);
  const Cluster all = profiles[1].cluster;
  const Cluster some = Cluster::parse(cluster_text(profiles[1], {{"pp", 2}, {"tp", 2}}));
  ASSERT_EQ(some.links.size(), 2u);
  EXPECT_EQ(some.links.at("tp").bandwidth, all.links.at("tp").bandwidth);
  EXPECT_DOUBLE_EQ(some.links.at("pp").latency, all.links.at("pp").latency);
  EXPECT_EQ(some.compute->flops, all.compute->flops);
  EXPECT_EQ(some.compute->memory, all.compute->memory);
  EXPECT_EQ(some.reduce, all.reduce);
  EXPECT_TRUE(contains(sentence_of([] { read_profiles("laptop,moon"); }), "'moon' is neither one of ethernet"));
  EXPECT_TRUE(contains(sentence_of([] { read_profiles("laptop,laptop"); }), "has laptop twice"));
}

json report() {
  return json::parse(R"({
    "steps": [{"step": 0, "loss": 5.5}, {"step": 1, "loss": 5.0}],
    "summary": {"ms_per_step": 20, "tokens_per_second": 1000, "virtual_ms_per_step": 5},
    "exposed_communication": {"wall_ms_per_step": 3, "virtual_ms_per_step": 1}, "bubble": {"measured": 0.25},
    "memory": {"parameters": {"predicted": 7, "measured_peak": 8}, "data": {"measured_peak": 2}},
    "traffic": {"tp": {"all_reduce": {"measured": 100}, "all_gather": {"measured": 50}}, "pp": {"send": {"measured": 8}}}
  })");
}

TEST(Report, IsRead) {
  const Measurement found = parse_report(report());
  EXPECT_EQ(found.wall.tokens_per_second, 1000);
  EXPECT_EQ(found.wall.exposed_milliseconds, 3);
  EXPECT_EQ(found.wall.bubble, 0.25);
  ASSERT_TRUE(found.in_virtual_time);
  EXPECT_EQ(found.in_virtual_time->tokens_per_second, 4000) << "20 tokens a step, in 5 ms";
  EXPECT_EQ(found.in_virtual_time->exposed_milliseconds, 1);
  EXPECT_EQ(found.losses, (std::vector<double>{5.5, 5.0}));
  EXPECT_EQ(found.memory.at("parameters"), 8);
  EXPECT_EQ(found.traffic.at("tp"), 75) << "of each of the two steps";
  EXPECT_EQ(found.traffic.at("pp"), 4);
}

TEST(Report, ThatLacksSomethingIsRefused) {
  for (const std::string key : {"steps", "summary", "exposed_communication", "memory", "traffic"}) {
    json without = report();
    without.erase(key);
    EXPECT_TRUE(contains(sentence_of([&] { parse_report(without); }), "the report lacks " + key)) << key;
  }
  json wrong = report();
  wrong["summary"]["ms_per_step"] = "fast";
  EXPECT_EQ(sentence_of([&] { parse_report(wrong); }), "the report's summary.ms_per_step is no number");
  EXPECT_EQ(sentence_of([] { parse_report(json::array()); }), "the report lacks summary.ms_per_step");
}

TEST(Reason, IsTheProgramsSentence) {
  EXPECT_EQ(reason_of({1, "step 1\nninefold: heads (3) must\nmpirun ended\n"}), "heads (3) must");
  EXPECT_EQ(reason_of({1, "Traceback\n[rank0]: ValueError: no\nChildFailedError: \n"}), "[rank0]: ValueError: no");
  EXPECT_EQ(reason_of({1, "a\nb\n\n"}), "b");
  EXPECT_EQ(reason_of({137, ""}), "exit code 137, and nothing printed");
}

Results made_up() {
  Results results{.ranks = 2, .cores = 2, .processor = "a processor", .work = {}, .profiles = read_profiles("laptop")};
  const Speed slow{.milliseconds = 10, .tokens_per_second = 100, .exposed_milliseconds = 0, .bubble = {}};
  const Speed fast{.milliseconds = 6, .tokens_per_second = 150, .exposed_milliseconds = 1, .bubble = 0.5};
  Row serial{.technique = {.name = "serial", .program = {}, .mesh = {}, .options = {}}, .command = "train"};
  serial.here = Figures{slow, {}};
  Row pipeline{.technique = {.name = "PP", .program = {}, .mesh = {{"pp", 2}}, .options = {}},
               .command = "train --pp 2"};
  pipeline.here = Figures{fast, {}};
  pipeline.memory = {{"parameters", 40}, {"gathered", 2}, {"data", 1}};
  pipeline.traffic = {{"pp", 8}};
  Row failed{.technique = {.name = "TP", .program = {}, .mesh = {{"tp", 2}}, .options = {}}, .command = "train --tp 2"};
  failed.failure = "heads, \"three\" </script>";
  results.rows = {serial, pipeline, failed};
  relate_to_baselines(results.rows, {{"serial", {5, 4}}, {"PP", {5, 4.25}}, {"TP", {}}});
  return results;
}

TEST(Rows, AreComparedWithTheirBaseline) {
  const Results results = made_up();
  EXPECT_EQ(results.rows[0].here->efficiency, 1);
  EXPECT_EQ(results.rows[1].here->efficiency, 0.75);
  EXPECT_EQ(results.rows[1].loss_difference, 0.25);
  EXPECT_EQ(other_memory(results.rows[1]), 3);
  EXPECT_FALSE(other_memory(results.rows[2]));
  EXPECT_TRUE(results.has_failures());
}

TEST(Rows, AreWritten) {
  const Results results = made_up();
  const std::string table = table_text(results), csv = csv_text(results);
  EXPECT_TRUE(contains(table, "failed: TP: heads, \"three\"")) << table;
  EXPECT_TRUE(contains(table, "pp 8 B")) << table;
  EXPECT_TRUE(contains(csv, "\nPP,2,pp(2),0.25,6,150,0.75,1,0.5,40,,,,3,8,,,,,,")) << csv;
  EXPECT_TRUE(contains(csv, "\"heads, \"\"three\"\" </script>\"\n")) << csv;
  const json found = json::parse(json_of(results).dump());
  EXPECT_EQ(found["rows"][1]["here"]["efficiency"], 0.75);
  EXPECT_EQ(found["rows"][1]["memory"]["gathered"], 2);
  EXPECT_EQ(found["rows"][2]["failure"], "heads, \"three\" </script>");
  EXPECT_FALSE(found["rows"][2].contains("here"));
}

TEST(Page, HoldsAllThatItNeeds) {
  const std::string page = page_of(made_up());
  EXPECT_TRUE(contains(page, "Released under the MIT License"));
  EXPECT_TRUE(contains(page, "heads, \\\"three\\\" <\\/script>")) << "a text that does not end the script";
  for (const std::string reference : {"src=", "<link", "@import", "url(", "/*DATA*/", "/*CHART.JS*/"}) {
    EXPECT_FALSE(contains(page.substr(0, page.find("<script>")), reference)) << reference;
    EXPECT_FALSE(contains(page.substr(page.rfind("<script>")), reference)) << reference;
  }
}

const Names small_model = {"--dim", "32", "--layers", "2",  "--heads", "4", "--kv-heads", "2",
                           "--ffn", "48", "--length", "16", "--batch", "4", "--steps",    "3"};

Finished run_compare(Names options) {
  Names command = {NINEFOLD_09_COMPARE};
  command.insert(command.end(), small_model.begin(), small_model.end());
  command.insert(command.end(), options.begin(), options.end());
  return run_command(command);
}

TEST(Program, PutsRowsSideBySide) {
  const TemporaryFolder folder;
  const std::string text = folder.write("short.txt", "In the beginning");
  const Finished finished = run_compare({"--only", "ddp flat,tp", "--clusters", "ethernet", "--csv",
                                         folder.path("a.csv"), "--json", folder.path("a.json")});
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  const json found = json::parse(folder.read("a.json"));
  ASSERT_EQ(found["rows"].size(), 3u) << finished.output;
  for (const json& row : found["rows"]) {
    const std::string name = row["technique"];
    EXPECT_TRUE(contains(finished.output, "\n" + name + " ")) << finished.output;
    EXPECT_TRUE(contains(folder.read("a.csv"), "\n" + name + ",")) << name;
    EXPECT_LT(row["loss_difference"], 1e-6) << name;
    EXPECT_GT(row["virtual"]["ethernet"]["efficiency"], 0) << name;
    EXPECT_GT(row["memory"]["activations"], 0) << name;
  }
  EXPECT_GT(found["rows"][1]["traffic"]["dp_replicate"], 0);
  EXPECT_GT(found["rows"][2]["traffic"]["tp"], 0);
  EXPECT_EQ(folder.files(), 3) << "nothing aside";
}

// The other rows are shown.
TEST(Program, TellsWhyARowFails) {
  const TemporaryFolder folder;
  const std::string profile = folder.write("half.txt", "compute=1TF/s\ntp=1GB/s,1us\n");
  const Finished finished =
      run_compare({"--only", "ddp flat,tp", "--clusters", profile, "--json", folder.path("a.json")});
  EXPECT_EQ(finished.exit_code, 1) << finished.output;
  EXPECT_TRUE(contains(finished.output, "failed: DDP flat: the cluster half has no link for dp_replicate"))
      << finished.output;
  EXPECT_GT(json::parse(folder.read("a.json"))["rows"][2]["virtual"]["half"]["efficiency"], 0);
}

TEST(Program, RefusesWhatCannotWorkBeforeItBegins) {
  const struct {
    Names options;
    std::string sentence;
  } cases[] = {{{"--only", "fdsp"}, "no technique that fits here has 'fdsp' in its name: serial, DDP naive"},
               {{"--html", "/nowhere/a.html"}, "--html"},
               {{"--csv", "/nowhere/a.csv"}, "--csv"},
               {{"--clusters", "moon"}, "'moon' is neither one of"},
               {{"--scaling", "weak", "--clusters", "none"}, "--scaling needs --clusters"},
               {{"--scaling", "strong", "--with-pytorch"}, "--with-pytorch has no virtual time"},
               {{"--ranks", "0"}, "--ranks (0) must be at least 1"}};
  for (const auto& [options, sentence] : cases) {
    const Finished finished = run_compare(options);
    EXPECT_EQ(finished.exit_code, 1) << finished.output;
    EXPECT_TRUE(finished.output.starts_with("ninefold: ")) << finished.output;
    EXPECT_TRUE(contains(finished.output, sentence)) << finished.output;
  }
}

TEST(Program, SaysWhatPyTorchNeeds) {
  const Finished finished = run_command({"env", "PYTHON=/bin/false", NINEFOLD_09_COMPARE, "--with-pytorch"});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(finished.output.starts_with("ninefold: --with-pytorch: /bin/false has no PyTorch")) << finished.output;
}

}  // namespace
}  // namespace ninefold::comparison
