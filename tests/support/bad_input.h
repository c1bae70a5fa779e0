// Runs programs with wrong input: they must say one sentence on rank 0 that names the value, the rule and the fix, end
// with a non-zero exit code, leave no process, and every file as it was.
#pragma once

#include <cstring>

#include "tests/support/command.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {

const std::string data_folder = NINEFOLD_DATA;

struct BadInput {
  std::string name;
  std::string options;   // {} is the folder of bad files
  std::string sentence;  // a part of it
};

inline std::string file_content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// A file of llm.c's layout: 256 words of header, then 16-bit tokens.
inline std::string token_file(int32_t magic, int32_t version, int32_t announced, size_t tokens) {
  std::string content(256 * sizeof(int32_t) + 2 * tokens, '\0');
  const int32_t header[] = {magic, version, announced};
  std::memcpy(content.data(), header, sizeof header);
  return content;
}

// The embedded MNIST with another file in place of one of the four.
inline void write_mnist(const TemporaryFolder& folder, const std::string& name, const std::string& replaced,
                        const std::string& content) {
  std::filesystem::create_directory(folder.path(name));
  for (const std::string file :
       {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}) {
    if (file == replaced) continue;
    std::filesystem::create_symlink(data_folder + "/mnist/" + file + ".gz", folder.path(name + "/" + file + ".gz"));
  }
  if (!content.empty() || name == "empty_images") folder.write(name + "/" + replaced, content);
}

// A model's folder with another text in place of `text` in one of its files.
inline void write_model(const TemporaryFolder& folder, const std::string& name, const std::string& file,
                        const std::string& text, const std::string& other) {
  std::filesystem::create_directories(folder.path(name));
  for (const std::string one : {"config.json", "model.safetensors"}) {
    std::string content = file_content(NINEFOLD_TEST_DATA "/hf_llama/" + one);
    if (one == file) content.replace(content.find(text), text.size(), other);
    folder.write(name + "/" + one, content);
  }
}

inline void write_bad_models(const TemporaryFolder& folder) {
  const std::string model = "model.safetensors", norm = "\"model.norm.weight\"";
  write_model(folder, "missing_tensor", model, norm, "\"model.morn.weight\"");
  write_model(folder, "other_shape", "config.json", "\"intermediate_size\": 128", "\"intermediate_size\": 120");
  write_model(folder, "checkpoints/step_4", "", "", "");
  write_model(folder, "long_header", "", "", "");
  std::string content = folder.read("long_header/" + model);
  folder.write("long_header/" + model, content.replace(0, 8, std::string("\0\0\0\0\0\0\0\x80", 8)));
  write_model(folder, "past_the_end", model, "[574976,575232]", "[574976,575236]");
  write_model(folder, "cut", "", "", "");
  folder.write("cut/" + model, file_content(NINEFOLD_TEST_DATA "/hf_llama/" + model).substr(0, 5000));
}

inline void write_bad_files(const TemporaryFolder& folder) {
  write_bad_models(folder);
  const std::string text = file_content(data_folder + "/kjv.txt.gz");
  const std::string images = file_content(data_folder + "/mnist/train-images-idx3-ubyte.gz");
  folder.write("empty.txt", "");
  folder.write("short.txt", "In the beginning");
  folder.write("cut.txt.gz", text.substr(0, text.size() / 2));
  folder.write("magic.bin", token_file(7, 1, 5000, 5000));
  folder.write("version.bin", token_file(20240520, 2, 5000, 5000));
  folder.write("cut.bin", token_file(20240520, 1, 5000, 4000));
  folder.write("beyond.bin", std::string(20000, '\0').append("\x2c\x01"));  // the last token is 300
  folder.write("twice.csv", "0F0,0B0,0F0\n1F0,1B0\n2F0,2B0\n3F0,3B0\n");
  folder.write("cycle.csv", "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n2F0,2F1,2B0,2B1\n3F0,3F1,3B0,3B1\n");
  folder.write("ranks.csv", "0F0,0B0\n1F0,1B0\n2F0,2B0\n3F0,3B0\n4F0,4B0\n");
  folder.write("unsharded.csv", "0F0,0B0\n1UNSHARD,1F0,1B0,1RESHARD\n2F0,2B0\n3F0,3B0\n");
  folder.write("unknown_key.ini", "layers = 2\nlearning-rate = 1\n");
  folder.write("bad_value.ini", "threads = two\n");
  write_mnist(folder, "no_images", "train-images-idx3-ubyte", "");
  write_mnist(folder, "empty_images", "train-images-idx3-ubyte", "");
  write_mnist(folder, "cut_gzip", "train-images-idx3-ubyte", images.substr(0, images.size() / 2));
  write_mnist(folder, "text_images", "train-images-idx3-ubyte", "these are not images, whatever the name says");
  write_mnist(folder, "cut_labels", "t10k-labels-idx1-ubyte", std::string("\0\0\x08\x01\0\0\x07\xd0", 8) + "12345");
}

// Runs the program on 4 ranks with `bad`, beside a report that must survive.
inline void expect_refused(const std::string& program, const std::string& usual, const BadInput& bad) {
  SCOPED_TRACE(bad.name);
  const TemporaryFolder folder;
  write_bad_files(folder);
  const std::string report = folder.write("report.json", "precious");
  const auto files = folder.files();

  const std::string options = fmt::format(fmt::runtime(bad.options), fmt::arg("folder", folder.path("")));
  Command command(4, fmt::format("{} {} --report {} {}", program, usual, report, options));
  const int exit_code = command.finish();
  EXPECT_EQ(exit_code, 1) << command.output();
  const auto sentences = lines_of(command.output(), "ninefold:");
  ASSERT_EQ(sentences.size(), 1u) << command.output();
  EXPECT_NE(sentences[0].find(bad.sentence), std::string::npos) << sentences[0];
  EXPECT_EQ(sentences[0].find(".cpp:"), std::string::npos) << "users are told nothing of the code: " << sentences[0];
  EXPECT_EQ(command.output().find("terminate called"), std::string::npos) << command.output();
  EXPECT_TRUE(command.left_nothing());
  EXPECT_EQ(folder.read("report.json"), "precious");
  EXPECT_EQ(folder.files(), files);
}

// Each of `inputs`, several at a time.
inline void expect_refused(const std::string& program, std::string_view usual, const std::vector<BadInput>& inputs) {
  for_each_at_once(inputs, [&](const BadInput& bad) { expect_refused(program, std::string(usual), bad); });
}

inline std::vector<BadInput> operator+(std::vector<BadInput> some, const std::vector<BadInput>& more) {
  some.insert(some.end(), more.begin(), more.end());
  return some;
}

}  // namespace ninefold
