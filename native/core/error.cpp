// This thread's last native error. A fixed place per thread: recording an error must not fail, even without memory.
#include "temper/error.h"

namespace temper {
namespace {
thread_local Error t_last{"", ""};
}

void set_last_error(const char* code, const char* message) noexcept {
  try {
    t_last.code = code;
    t_last.message = message;
  } catch (...) {  // no memory for the text: the code alone fits the string's inline storage
    t_last.message.clear();
  }
}

const Error& last_error() noexcept { return t_last; }

}  // namespace temper
