// What the readers of data files give, and what they say about files that are not as they should be.
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstring>
#include <random>

#include "common/data/file.h"
#include "common/data/mnist.h"
#include "common/data/tokens.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

using std::string;

string gzip(const string& content) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY);
  string packed(deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

string random_bytes(std::mt19937& random, size_t most) {
  string bytes(random() % (most + 1), '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// Feeds `parse` with random content, and with `valid` that is cut, lengthened or has one byte changed.
template <typename Parse>
void expect_no_crash(const string& valid, Parse parse) {
  std::mt19937 random(3);
  for (int round = 0; round < 1000; ++round) {
    string content = random_bytes(random, 3000);
    if (round % 2 == 0) {
      content = valid.substr(0, random() % 4 == 0 ? random() % valid.size() : valid.size());
      if (!content.empty()) content[random() % std::min<size_t>(content.size(), 64)] = static_cast<char>(random());
      if (random() % 4 == 0) content += random_bytes(random, 9);
    }
    try {
      parse(content);
    } catch (const UserError&) {
    }
  }
}

template <typename Int>
string little_endian(const std::vector<Int>& values) {
  return string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Int));
}

// ---- files --------------------------------------------------------------------------------------------------------

TEST(ReadFile, PlainAndGzip) {
  const TemporaryFolder folder;
  const string text(3'000'000, 'x');
  EXPECT_EQ(read_file(folder.write("plain", text)), text);
  EXPECT_EQ(read_file(folder.write("packed", gzip(text))), text);
  EXPECT_EQ(read_file(folder.write("members", gzip("one ") + gzip("two"))), "one two");
}

TEST(ReadFile, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  const string packed = gzip("some text that is long enough to be cut");
  const auto refusal = [&](const string& content) {
    const string path = folder.write("f", content);
    return sentence_of([&] { read_file(path); }).substr(path.size());
  };
  EXPECT_EQ(refusal(""), " is empty; give a file with content");
  EXPECT_EQ(refusal(gzip("")), " is empty; give a file with content");
  for (size_t length = 2; length < packed.size(); ++length) {
    EXPECT_EQ(refusal(packed.substr(0, length)), " is a gzip file that ends in the middle; get it again") << length;
  }
  EXPECT_EQ(refusal(packed + "tail"), " is a gzip file with 4 bytes behind its end; get it again");
  string damaged = packed;
  damaged[packed.size() - 6] ^= 1;  // in the checksum
  EXPECT_EQ(refusal(damaged), " is a damaged gzip file (incorrect data check); get it again");
  EXPECT_EQ(sentence_of([&] { read_file(folder.path("none")); }),
            folder.path("none") + " does not exist; check the path");
  EXPECT_NE(sentence_of([&] { read_file(folder.path(".")); }).find("is a folder"), string::npos);
  const string hidden = folder.write("hidden", "x");
  std::filesystem::permissions(hidden, std::filesystem::perms::none);
  if (::geteuid() == 0) return;  // root reads every file
  EXPECT_EQ(sentence_of([&] { read_file(hidden); }), hidden + " cannot be read: Permission denied");
}

TEST(ReadFile, DamagedGzipNeverCrashes) {
  expect_no_crash(gzip(string(2000, 'a').append("b")), [](const string& content) { unpacked(content, "f"); });
}

// ---- MNIST --------------------------------------------------------------------------------------------------------

string idx(const std::vector<uint32_t>& shape, const string& values) {
  string content = {0, 0, 8, static_cast<char>(shape.size())};
  for (const uint32_t dimension : shape) {
    for (int shift = 24; shift >= 0; shift -= 8) content += static_cast<char>(dimension >> shift);
  }
  return content + values;
}

string grey_images(int count) {
  string values;
  for (int i = 0; i < count * 784; ++i) values += static_cast<char>(i % 251);
  return values;
}

TEST(Mnist, ReadsPlainAndGzip) {
  const TemporaryFolder folder;
  folder.write("train-images-idx3-ubyte", idx({3, 28, 28}, grey_images(3)));
  folder.write("train-labels-idx1-ubyte.gz", gzip(idx({3}, string("\x04\x00\x09", 3))));
  const Mnist set = Mnist::load(folder.path(""), MnistSplit::train);
  EXPECT_EQ(set.size(), 3);
  EXPECT_EQ(set.label(2), 9);
  EXPECT_EQ(set.image(1)[5], (784 + 5) % 251);

  const DeviceHandle device = make_cpu_device();
  const Mnist::Batch batch = set.batch(device, {2, 0});
  EXPECT_EQ(batch.images.shape(), (Shape{2, 1, 28, 28}));
  EXPECT_EQ(batch.labels.to_vector<int32_t>(), (std::vector<int32_t>{9, 4}));
  EXPECT_FLOAT_EQ(batch.images.data<float>()[3], ((2 * 784 + 3) % 251 / 255.0f - 0.1307f) / 0.3081f);
  EXPECT_FLOAT_EQ(batch.images.data<float>()[784], -0.1307f / 0.3081f);
  EXPECT_EQ(device->ledger().now(MemoryKind::data), batch.images.bytes() + batch.labels.bytes());
}

TEST(Mnist, ReadsTheEmbeddedPart) {
  const Mnist train = Mnist::load(NINEFOLD_DATA "/mnist", MnistSplit::train);
  const Mnist test = Mnist::load(NINEFOLD_DATA "/mnist", MnistSplit::test);
  EXPECT_EQ(train.size(), 10'000);
  EXPECT_EQ(test.size(), 2'000);
}

TEST(Mnist, SaysWhatIsWrong) {
  const string good = idx({2, 3}, "abcdef");
  const auto refusal = [](const string& content) { return sentence_of([&] { parse_idx(content, 2, "f"); }); };
  EXPECT_EQ(parse_idx(good, 2, "f").shape, (Shape{2, 3}));
  EXPECT_EQ(refusal(good.substr(0, 11)),
            "f has 11 bytes, but the header of its kind of IDX file has 12; get the file again");
  EXPECT_EQ(refusal(idx({6}, "abcdef  ")),
            "f begins with 0x00000801, but an IDX file of bytes with 2 dimension(s) begins with 0x00000802; check that "
            "it is the right file");
  EXPECT_EQ(refusal("not an IDX file"),
            "f begins with 0x6e6f7420, but an IDX file of bytes with 2 dimension(s) begins with 0x00000802; check that "
            "it is the right file");
  EXPECT_EQ(refusal(good.substr(0, 17)),
            "f is cut: its header [2, 3] announces more than the 5 bytes that follow; get the file again");
  EXPECT_EQ(refusal(good + "x"), "f has 1 bytes more than its header [2, 3] announces; get the file again");
  EXPECT_EQ(refusal(idx({0, 3}, "")), "f says that its dimension 0 is 0; get the file again");
  EXPECT_EQ(refusal(idx({0x80000000u, 0x80000000u}, "")),
            "f is cut: its header [2147483648, 2147483648] announces more than the 0 bytes that follow; get the file "
            "again");
  // The product of these is 0 in 64 bits.
  const string overflowing = idx({0x80000000u, 0x80000000u, 4}, "");
  EXPECT_NE(sentence_of([&] { parse_idx(overflowing, 3, "f"); }).find("is cut"), string::npos);
}

TEST(Mnist, SaysWhatDoesNotFitTogether) {
  const TemporaryFolder folder;
  const string images = folder.write("images", idx({2, 28, 28}, grey_images(2)));
  const string small = folder.write("small", idx({2, 2, 2}, "abcdefgh"));
  const string labels = folder.write("labels", idx({2}, string("\x01\x02", 2)));
  const string three = folder.write("three", idx({3}, string("\x01\x02\x03", 3)));
  const string ten = folder.write("ten", idx({2}, string("\x01\x0a", 2)));
  EXPECT_EQ(Mnist::load_files(images, labels).size(), 2);
  EXPECT_EQ(sentence_of([&] { Mnist::load_files(images, three); }),
            images + " holds 2 images, but " + three + " holds 3 labels; give two files of one set");
  EXPECT_EQ(sentence_of([&] { Mnist::load_files(images, ten); }),
            ten + " has the label 10 at position 1, but labels are 0 to 9; get the file again");
  EXPECT_EQ(sentence_of([&] { Mnist::load_files(small, labels); }),
            small + " holds images of 2 x 2, but the model takes 28 x 28");
  EXPECT_NE(sentence_of([&] {
              Mnist::load(folder.path("none"), MnistSplit::test);
            }).find("holds neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte.gz"),
            string::npos);
}

TEST(Mnist, RandomBytesNeverCrash) {
  expect_no_crash(idx({2, 28, 28}, grey_images(2)), [](const string& content) { parse_idx(content, 3, "f"); });
}

// ---- tokens -------------------------------------------------------------------------------------------------------

string llm_c(int32_t magic, int32_t version, int32_t count, const std::vector<uint16_t>& tokens) {
  std::vector<int32_t> header(256);
  header[0] = magic;
  header[1] = version;
  header[2] = count;
  return little_endian(header) + little_endian(tokens);
}

std::vector<int32_t> values(const Tokens& tokens) {
  std::vector<int32_t> values;
  for (int64_t i = 0; i < tokens.size(); ++i) values.push_back(tokens[i]);
  return values;
}

TEST(Tokens, ReadsEveryLayout) {
  const std::vector<int32_t> expected = {1, 300, 65535};
  EXPECT_EQ(values(Tokens::parse("a\xff", "f.txt", 256)), (std::vector<int32_t>{97, 255}));
  EXPECT_EQ(values(Tokens::parse(little_endian<uint16_t>({1, 300, 65535}), "f.bin", 65536)), expected);
  EXPECT_EQ(values(Tokens::parse(llm_c(20240520, 1, 3, {1, 300, 65535}), "f.bin", 65536)), expected);
  EXPECT_EQ(values(Tokens::parse(llm_c(20240801, 7, 2, {1, 0, 62719, 1}), "f.bin", 128256)),
            (std::vector<int32_t>{1, 128255}));
  const TemporaryFolder folder;
  EXPECT_EQ(values(Tokens::load(folder.write("f.bin.gz", gzip(llm_c(20240520, 1, 1, {7}))), 8)),
            std::vector<int32_t>{7});
  EXPECT_EQ(values(Tokens::load(folder.write("f.txt.gz", gzip("AB")), 256)), (std::vector<int32_t>{65, 66}));
}

TEST(Tokens, ReadsTheEmbeddedText) {
  const Tokens text = Tokens::load(NINEFOLD_DATA "/kjv.txt.gz", 256);
  EXPECT_GT(text.size(), 4'000'000);
}

TEST(Tokens, SaysWhatIsWrong) {
  const auto refusal = [](const string& content, int64_t vocabulary = 65536) {
    return sentence_of([&] { Tokens::parse(content, "f.bin", vocabulary); });
  };
  EXPECT_EQ(refusal(llm_c(20240520, 2, 1, {7})),
            "f.bin has version 2, but version 1 (16-bit tokens) is read; write it again");
  EXPECT_EQ(
      refusal(llm_c(20240520, 1, 2, {7})),
      "f.bin has 2 bytes behind its header, but the 2 tokens that the header announces need 4; get the file again");
  EXPECT_EQ(refusal(llm_c(20240520, 1, -1, {7})),
            "f.bin has 2 bytes behind its header, but the -1 tokens that the header announces need -2; get the file "
            "again");
  EXPECT_EQ(
      refusal(llm_c(20240520, 1, 0, {})),
      "f.bin has 0 bytes behind its header, but the 0 tokens that the header announces need 0; get the file again");
  EXPECT_EQ(
      refusal(llm_c(20240802, 7, 1, {7, 0})),
      "f.bin has a header with magic 20240802, but token files have 20240520 (16-bit tokens) or 20240801 (32-bit); "
      "get a token file of llm.c");
  EXPECT_EQ(refusal(llm_c(20240801, 1, 1, {7, 0})),
            "f.bin has version 1, but version 7 (32-bit tokens) is read; write it again");
  EXPECT_EQ(
      refusal(llm_c(20240801, 7, 1, {7})),
      "f.bin has 2 bytes behind its header, but the 1 tokens that the header announces need 4; get the file again");
  EXPECT_EQ(
      refusal(llm_c(20240801, 7, 1, {0, 65535}), 128256),
      "f.bin has the token 4294901760 at position 0, but the vocabulary is 128256; give --vocab 4294901761 or more");
  EXPECT_EQ(refusal(llm_c(20240520, 1, 1, {7}).substr(0, 100)),
            "f.bin is cut: its header has 100 of 1024 bytes; get the file again");
  EXPECT_EQ(
      refusal(llm_c(20240520, 1, 1, {7, 8})),
      "f.bin has 4 bytes behind its header, but the 1 tokens that the header announces need 2; get the file again");
  EXPECT_EQ(refusal("abc"), "f.bin has an odd size (3 bytes), but its tokens are 16-bit; get the file again");
  EXPECT_EQ(refusal(little_endian<uint16_t>({1, 300}), 256),
            "f.bin has the token 300 at position 1, but the vocabulary is 256; give --vocab 301 or more");
  EXPECT_EQ(sentence_of([&] { Tokens::parse("a\xff", "f.txt", 255); }),
            "f.txt has the token 255 at position 1, but the vocabulary is 255; give --vocab 256 or more");
}

TEST(Tokens, RandomBytesNeverCrash) {
  for (const char* name : {"f.bin", "f.txt"}) {
    expect_no_crash(llm_c(20240520, 1, 5, {1, 2, 3, 4, 5}), [&](const string& content) {
      const Tokens tokens = Tokens::parse(content, name, 60'000);
      TokenDataset(tokens, TokenSplit::train, 2).batch(make_cpu_device(), {0});
    });
  }
}

string hundred_bytes() {
  string text;
  for (int i = 0; i < 100; ++i) text += static_cast<char>(i);
  return text;
}

TEST(TokenDataset, WindowsFollowEachOtherWithTargetsOneLater) {
  const DeviceHandle device = make_cpu_device();
  const Tokens tokens = Tokens::parse(hundred_bytes(), "f", 256);
  const TokenDataset train(tokens, TokenSplit::train, 10);
  EXPECT_EQ(train.size(), 9);  // 95 tokens: 9 windows of 10 and a target each
  const TokenDataset::Batch batch = train.batch(device, {8, 0});
  std::vector<int32_t> inputs, targets;
  for (const int first : {80, 0}) {
    for (int i = 0; i < 10; ++i) {
      inputs.push_back(first + i);
      targets.push_back(first + i + 1);
    }
  }
  EXPECT_EQ(batch.tokens.to_vector<int32_t>(), inputs);
  EXPECT_EQ(batch.targets.to_vector<int32_t>(), targets);
  EXPECT_EQ(device->ledger().now(MemoryKind::data), 2 * 80);
}

TEST(TokenDataset, EvaluatesOnTheLastFivePercentAlone) {
  const Tokens tokens = Tokens::parse(hundred_bytes(), "f", 256);
  const TokenDataset evaluation(tokens, TokenSplit::evaluation, 2);
  EXPECT_EQ(evaluation.size(), 2);
  const auto batch = evaluation.batch(make_cpu_device(), {0, 1});
  EXPECT_EQ(batch.tokens.to_vector<int32_t>(), (std::vector<int32_t>{95, 96, 97, 98}));
  EXPECT_EQ(batch.targets.to_vector<int32_t>(), (std::vector<int32_t>{96, 97, 98, 99}));
}

TEST(TokenDataset, RefusesALengthThatDoesNotFit) {
  const Tokens tokens = Tokens::parse(hundred_bytes(), "f", 256);
  EXPECT_EQ(TokenDataset(tokens, TokenSplit::train, 94).size(), 1);
  EXPECT_EQ(sentence_of([&] { TokenDataset(tokens, TokenSplit::train, 95); }),
            "length (95) does not fit: f has 95 tokens for training, and a window needs 96; give a shorter length or a "
            "longer text");
  EXPECT_EQ(
      sentence_of([&] { TokenDataset(tokens, TokenSplit::evaluation, 5); }),
      "length (5) does not fit: f has 5 tokens for evaluation (the last 5 %), and a window needs 6; give a shorter "
      "length or a longer text");
  EXPECT_EQ(sentence_of([&] { TokenDataset(tokens, TokenSplit::train, 0); }), "length (0) must be at least 1");
}

}  // namespace
}  // namespace ninefold
