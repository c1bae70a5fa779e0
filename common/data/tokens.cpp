#include "common/data/tokens.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/data/file.h"

namespace ninefold {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little endian and read as they are");

// llm.c's header: 256 int32, of which three are used and the others 0.
constexpr size_t header_bytes = 256 * sizeof(int32_t);

// Its two layouts: for GPT-2's tokens and for Llama 3's.
struct BinaryLayout {
  int32_t magic, version;
  int width;  // bytes of a token
};
constexpr BinaryLayout layouts[] = {{20240520, 1, 2}, {20240801, 7, 4}};

const BinaryLayout* layout_with(int32_t magic) {
  const auto* const found = std::find_if(std::begin(layouts), std::end(layouts),
                                         [&](const BinaryLayout& layout) { return layout.magic == magic; });
  return found == std::end(layouts) ? nullptr : found;
}

int32_t header_word(std::string_view content, size_t index) {
  int32_t word;
  std::memcpy(&word, content.data() + index * sizeof(word), sizeof(word));
  return word;
}

// Whether llm.c's header stands at the beginning, if perhaps a wrong one. In nanoGPT's layout the same bytes would be
// 506 times token 0 in a row.
bool has_header(std::string_view content) {
  if (content.size() >= sizeof(int32_t) && layout_with(header_word(content, 0))) return true;
  return content.size() >= header_bytes &&
         content.substr(0, header_bytes).find_first_not_of('\0', 3 * sizeof(int32_t)) >= header_bytes &&
         header_word(content, 0) != 0;
}

// Returns the bytes of a token.
int check_header(std::string_view content, std::string_view name) {
  require(content.size() >= header_bytes, "{} is cut: its header has {} of {} bytes; get the file again", name,
          content.size(), header_bytes);
  const BinaryLayout* const layout = layout_with(header_word(content, 0));
  require(layout != nullptr,
          "{} has a header with magic {}, but token files have {} (16-bit tokens) or {} (32-bit); get a token file of "
          "llm.c",
          name, header_word(content, 0), layouts[0].magic, layouts[1].magic);
  require(header_word(content, 1) == layout->version,
          "{} has version {}, but version {} ({}-bit tokens) is read; write "
          "it again",
          name, header_word(content, 1), layout->version, 8 * layout->width);
  const int64_t announced = header_word(content, 2);
  const int64_t bytes = static_cast<int64_t>(content.size() - header_bytes);
  require(announced > 0 && bytes == layout->width * announced,
          "{} has {} bytes behind its header, but the {} tokens that the header announces need {}; get the file again",
          name, bytes, announced, layout->width * announced);
  return layout->width;
}

bool is_binary(std::string_view name) { return name.ends_with(".bin") || name.ends_with(".bin.gz"); }

}  // namespace

Tokens Tokens::load(const std::string& path, int64_t vocabulary) { return parse(read_file(path), path, vocabulary); }

Tokens Tokens::parse(std::string content, const std::string& name, int64_t vocabulary) {
  const bool binary = is_binary(name);
  const bool header = binary && has_header(content);
  const int width = header ? check_header(content, name) : binary ? 2 : 1;
  require(!binary || content.size() % 2 == 0,
          "{} has an odd size ({} bytes), but its tokens are 16-bit; get the file again", name, content.size());
  Tokens tokens(std::move(content), name, header ? header_bytes : 0, width);
  tokens.require_below(vocabulary);
  return tokens;
}

Tokens::Tokens(std::string content, std::string name, size_t offset, int width)
    : content_(std::move(content)), name_(std::move(name)), offset_(offset), width_(width) {}

void Tokens::require_below(int64_t vocabulary) const {
  if (width_ == 1 && vocabulary > 255) return;  // every byte is
  for (int64_t i = 0; i < size(); ++i) {
    const auto token = static_cast<int64_t>(static_cast<uint32_t>((*this)[i]));  // 32 bits may hold too large ones
    require(token < vocabulary, "{} has the token {} at position {}, but the vocabulary is {}; give --vocab {} or more",
            name_, token, i, vocabulary, token + 1);
  }
}

int32_t Tokens::operator[](int64_t index) const {
  const char* const token = content_.data() + offset_ + index * width_;
  uint32_t value = 0;
  std::memcpy(&value, token, static_cast<size_t>(width_));
  return static_cast<int32_t>(value);
}

TokenDataset::TokenDataset(const Tokens& tokens, TokenSplit split, int64_t length) : tokens_(tokens), length_(length) {
  require(length > 0, "length ({}) must be at least 1", length);
  const int64_t evaluation = tokens.size() / 20;  // 5 %
  const int64_t border = tokens.size() - evaluation;
  begin_ = split == TokenSplit::train ? 0 : border;
  end_ = split == TokenSplit::train ? border : tokens.size();
  require(end_ - begin_ > length,
          "length ({}) does not fit: {} has {} tokens for {}, and a window needs {}; give a shorter length or a longer "
          "text",
          length, tokens.name(), end_ - begin_, split == TokenSplit::train ? "training" : "evaluation (the last 5 %)",
          length + 1);
}

TokenDataset::Batch TokenDataset::batch(const DeviceHandle& device, const std::vector<int64_t>& indices) const {
  const auto count = static_cast<int64_t>(indices.size()) * length_;
  std::vector<int32_t> inputs, targets;
  inputs.reserve(count);
  targets.reserve(count);
  for (const int64_t index : indices) {
    expect(index >= 0 && index < size(), "window {} of {}", index, size());
    const int64_t first = begin_ + index * length_;
    for (int64_t i = first; i < first + length_; ++i) {
      inputs.push_back(tokens_[i]);
      targets.push_back(tokens_[i + 1]);
    }
  }
  const MemoryScope scope(*device, MemoryKind::data);
  return {Tensor::from(device, {count}, inputs), Tensor::from(device, {count}, targets)};
}

}  // namespace ninefold
