// What a program leaves behind: files that are whole or absent, aligned tables, and numbers that people can read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ninefold {

class OpenFile;

// A file written piece by piece beside its target, under a temporary name, and renamed when it is whole and on the
// disk: whoever looks at `path` sees the old content or the new, never a part. All throw UserError where the file
// cannot be written.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  // Without commit() nothing is left.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view content);
  // The file is whole. Called once, last.
  void commit();

 private:
  void require_success(bool success) const;
  std::string path_, temporary_;
  std::unique_ptr<OpenFile> file_;  // none once it is committed
};

// The same for content that is whole already.
void write_file_atomically(const std::string& path, std::string_view content);

// Throws UserError unless a file could be written at `path`; leaves nothing behind. To be called before long work.
// `option` is named in the sentence ("--report").
void require_writable(const std::string& path, std::string_view option);

// A table for the terminal: columns of numbers are aligned to the right, columns of text to the left.
class Table {
 public:
  explicit Table(std::vector<std::string> headers);
  // As many cells as there are headers.
  void add_row(std::vector<std::string> cells);
  // One line a row, the headers first, each ending with a newline.
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Decimal units with three digits: "0 B", "512 B", "1.50 kB", "25.0 MB", "18.2 GB".
std::string human_bytes(double bytes);
// "950", "12.3 k", "5.00 M", "70.6 B", "1.20 T".
std::string human_count(double count);
// A rate of anything with SI prefixes: human_rate(2.5e11, "FLOP/s") is "250 GFLOP/s".
std::string human_rate(double per_second, std::string_view unit);
// "850 us", "12.3 ms", "4.56 s", "3 min 20 s", "2 h 05 min".
std::string human_seconds(double seconds);

}  // namespace ninefold
