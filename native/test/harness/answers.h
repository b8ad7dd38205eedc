// Answers of the reference that another machine worked out. An emulator takes ten times as long for the reference's
// doubles as for all kernels; the reference is no kernel, and says the same everywhere: it is asked where it is fast.
#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "test/harness/harness.h"

namespace temper::test {

void keep_answers();                            // from now on, all that is worked out
size_t write_answers(const std::string& name);  // @returns how many there are
void take_answers(const std::string& name);     // what is not among them is worked out as ever
bool answers_given();

// One thing that is asked of the reference: what, and with which arguments. The bytes of outputs do not matter.
class Question {
 public:
  Question(const std::string& what, const Values& args);
  const std::vector<uint8_t>* answer() const;   // null: not known
  void note(std::vector<uint8_t> bytes) const;  // where answers are kept
  // While one lives, nothing is noted: what is asked on the way to an answer is not asked where that is known.
  class Inner {
   public:
    Inner();
    ~Inner();
    Inner(const Inner&) = delete;
    Inner& operator=(const Inner&) = delete;
  };

 private:
  void add(const void* data, size_t n);
  bool asked_;
  uint64_t a_ = 0, b_ = 0;
};

}  // namespace temper::test
