// Errors as sentences. `require` guards what a user can get wrong, `expect` guards what only the code can get wrong.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <type_traits>

namespace ninefold {

// A rule of the code itself was broken; the sentence ends with the place, "(file:line)".
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Wrong input: an option, a file, a mesh. The sentence names the value, the rule and the fix, and nothing of the code.
class UserError : public Error {
 public:
  using Error::Error;
};

namespace detail {

// A format string that remembers where it was written. (std::source_location does not work in clang 14.)
template <typename... Args>
struct Placed {
  template <typename Text>
  consteval Placed(const Text& text, const char* file_name = __builtin_FILE(), int line_number = __builtin_LINE())
      : text(text), file(file_name), line(line_number) {}

  fmt::format_string<Args...> text;
  const char* file;
  int line;
};

[[noreturn]] void throw_error(std::string sentence, const char* file, int line);

}  // namespace detail

// Throws UserError with the formatted sentence unless `condition` holds.
template <typename... Args>
void require(bool condition, fmt::format_string<Args...> text, Args&&... args) {
  if (!condition) throw UserError(fmt::format(text, std::forward<Args>(args)...));
}

// Throws Error with the formatted sentence and the caller's place unless `condition` holds.
template <typename... Args>
void expect(bool condition, detail::Placed<std::type_identity_t<Args>...> message, Args&&... args) {
  if (!condition) {
    detail::throw_error(fmt::format(message.text, std::forward<Args>(args)...), message.file, message.line);
  }
}

}  // namespace ninefold
