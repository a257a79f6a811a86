"""The layer check must fire on what it forbids: runs it over small made-up trees."""
import pathlib
import tempfile
import unittest

import check_layers


def problems(path, text):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
        return check_layers.check(pathlib.Path(folder))


class CheckLayersTest(unittest.TestCase):
    def test_fires_on_forbidden_includes(self):
        for path, line in [
            ("ops/x.cc", "#include <mpi.h>"),
            ("model/x.h", "#include <torch/torch.h>"),
            ("base/x.cc", '#include "lwm/config/x.h"'),
            ("data/x.cc", "#include <ATen/ATen.h>"),
            ("ops/x.h", '#include "lwm/testing/x.h"'),
            ("kernels/x.cc", "#include <ATen/ATen.h>"),
            ("ops/x.cc", "#include <oneapi/dnnl/dnnl.hpp>"),
        ]:
            self.assertEqual(len(problems(path, line + "\n")), 1, line)

    def test_allows_what_the_table_allows(self):
        self.assertEqual(problems("ops/x.cc", '#include "lwm/kernels/x.h"\n#include <ATen/ATen.h>\n'), [])
        self.assertEqual(problems("dist/communicator_mpi.cc", "#include <mpi.h>\n"), [])
        self.assertEqual(problems("ops/x_test.cc", '#include "lwm/testing/x.h"\n'), [])

    def test_fires_on_long_files(self):
        self.assertEqual(len(problems("base/x.cc", "\n" * 801)), 1)


if __name__ == "__main__":
    unittest.main()
