#pragma once

namespace lwm::ops {

// While it lives, MKL computes this thread's products as one thread does. In a parallel region it
// has no other threads, but still splits rows as if it had, and with AVX2 the rows beside a split
// are rounded differently: a result would depend on the number of threads. Without MKL: nothing.
class SerialMkl {
 public:
  SerialMkl();
  ~SerialMkl();
  SerialMkl(const SerialMkl&) = delete;
  SerialMkl& operator=(const SerialMkl&) = delete;

 private:
  int before_ = 0;
};

}  // namespace lwm::ops
