#include "common/base/report.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "common/base/check.h"
#include "common/base/open_file.h"

namespace ninefold {

namespace {

// Beside the target, so that the rename stays within one file system; own to the process, so that two do not collide.
std::string temporary_name(const std::string& path) { return fmt::format("{}.tmp{}", path, ::getpid()); }

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// Three digits and the prefix whose power of 1000 fits: 12345 -> "12.3" and "k".
std::string scaled(double value, std::string_view unit, const std::array<std::string_view, 6>& prefixes) {
  size_t power = 0;
  while (std::abs(value) >= 999.5 && power + 1 < prefixes.size()) {
    value /= 1000;
    ++power;
  }
  const bool whole = power == 0 && value == std::floor(value);
  const int decimals = whole || std::abs(value) >= 99.95 ? 0 : std::abs(value) >= 9.995 ? 1 : 2;
  const std::string suffix = fmt::format("{}{}", prefixes[power], unit);
  return fmt::format("{:.{}f}{}{}", value, decimals, suffix.empty() ? "" : " ", suffix);
}

constexpr std::array<std::string_view, 6> si_prefixes = {"", "k", "M", "G", "T", "P"};

bool is_number(std::string_view cell) {
  if (cell.empty() || cell == "-") return true;
  return std::isdigit(static_cast<unsigned char>(cell.front())) ||
         (cell.size() > 1 && std::string_view("+-.").find(cell.front()) != std::string_view::npos &&
          (std::isdigit(static_cast<unsigned char>(cell[1])) || cell[1] == '.'));
}

// Characters on the terminal: UTF-8 continuation bytes take no place.
size_t width_of(std::string_view cell) {
  return std::count_if(cell.begin(), cell.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

}  // namespace

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)),
      temporary_(temporary_name(path_)),
      file_(std::make_unique<OpenFile>(temporary_, O_WRONLY | O_CREAT | O_TRUNC)) {
  require_success(file_->is_open());
}

AtomicFile::~AtomicFile() {
  if (file_) ::unlink(temporary_.c_str());
}

void AtomicFile::require_success(bool success) const {
  require(success, "{} cannot be written: {}; choose another place", path_, std::strerror(errno));
}

void AtomicFile::write(std::string_view content) { require_success(file_->write(content)); }

void AtomicFile::commit() {
  require_success(file_->flush());
  require_success(rename_on_disk(temporary_, path_));
  file_.reset();
}

void write_file_atomically(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

void require_writable(const std::string& path, std::string_view option) {
  namespace fs = std::filesystem;
  const std::string folder = folder_of(path);
  std::error_code ignored;
  require(!path.empty(), "{} needs the name of a file", option);
  require(fs::is_directory(folder, ignored), "{} {}: the folder {} does not exist; create it first", option, path,
          folder);
  require(!fs::is_directory(path, ignored), "{} {} is a folder; name a file in it", option, path);
  // A nameless file leaves nothing behind when another rank ends the job at this very moment.
  if (OpenFile(folder, O_WRONLY | O_TMPFILE).is_open()) return;
  const std::string temporary = temporary_name(path);
  const bool writable = OpenFile(temporary, O_WRONLY | O_CREAT).is_open();
  require(writable, "{} {} cannot be written: {}; choose another place", option, path, std::strerror(errno));
  ::unlink(temporary.c_str());
}

Table::Table(std::vector<std::string> headers) { rows_.push_back(std::move(headers)); }

void Table::add_row(std::vector<std::string> cells) {
  expect(cells.size() == rows_.front().size(), "a row of {} cells in a table of {}", cells.size(),
         rows_.front().size());
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  const size_t columns = rows_.front().size();
  std::vector<size_t> widths(columns, 0);
  std::vector<bool> numeric(columns, true);
  for (size_t row = 0; row < rows_.size(); ++row) {
    for (size_t column = 0; column < columns; ++column) {
      widths[column] = std::max(widths[column], width_of(rows_[row][column]));
      if (row > 0) numeric[column] = numeric[column] && is_number(rows_[row][column]);
    }
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t column = 0; column < columns; ++column) {
      const std::string padding(widths[column] - width_of(row[column]), ' ');
      if (column > 0) line += "  ";
      line += numeric[column] ? padding + row[column] : row[column] + padding;
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string human_bytes(double bytes) { return scaled(bytes, "B", si_prefixes); }

std::string human_count(double count) { return scaled(count, "", {"", "k", "M", "B", "T", "P"}); }

std::string human_rate(double per_second, std::string_view unit) { return scaled(per_second, unit, si_prefixes); }

std::string human_seconds(double seconds) {
  if (seconds >= 3600) return fmt::format("{} h {:02} min", int64_t(seconds) / 3600, int64_t(seconds) % 3600 / 60);
  if (seconds >= 60) return fmt::format("{} min {:02} s", int64_t(seconds) / 60, int64_t(seconds) % 60);
  if (seconds == 0 || seconds >= 1) return scaled(seconds, "s", si_prefixes);
  return seconds >= 1e-3 ? scaled(seconds * 1e3, "ms", si_prefixes) : scaled(seconds * 1e6, "us", si_prefixes);
}

}  // namespace ninefold
