// One error type for native code. Ops throw it inside a backend; at the C boundary it becomes a status and a
// thread-local record.
#pragma once
#include <exception>
#include <new>
#include <sstream>
#include <string>
#include <utility>

namespace temper {

class Error : public std::exception {
 public:
  Error(std::string code, std::string message) : code(std::move(code)), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
  std::string code, message;
};

template <class... Args>
[[noreturn]] void fail(const char* code, const Args&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(code, text.str());
}
// Message order: what, where, got, wanted, next step.
template <class... Args>
void require(bool ok, const char* code, const Args&... parts) {
  if (!ok) [[unlikely]]
    fail(code, parts...);
}

void set_last_error(const char* code, const char* message) noexcept;  // this thread's record, read by the binding
const Error& last_error() noexcept;

// The type of the throwing function behind a table entry.
template <class>
struct ThrowingForm;
template <class... A>
struct ThrowingForm<int (*)(A...)> {
  using type = void(A...);
};

// Wraps a throwing op as a table entry: `.rope = Guard<&cpu::rope>::call`.
template <auto F>
struct Guard;
template <class... A, void (*F)(A...)>
struct Guard<F> {
  static int call(A... args) noexcept {
    try {
      F(args...);
      return 0;
    } catch (const Error& e) {
      set_last_error(e.code.c_str(), e.message.c_str());
    } catch (const std::bad_alloc&) {
      set_last_error("out_of_memory", "the host has no memory left; lower the tokens per step or the context");
    } catch (const std::exception& e) {
      set_last_error("internal", e.what());
    } catch (...) {
      set_last_error("internal", "unknown native error");
    }
    return 1;
  }
};

}  // namespace temper
