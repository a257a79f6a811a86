// main() of every test program. LWM_MPI_TEST programs initialise MPI themselves.
#include <gtest/gtest.h>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
