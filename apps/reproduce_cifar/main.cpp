#include "apps/reproduce_cifar/options.hpp"
#include "apps/reproduce_cifar/pipeline.hpp"
#include "apps/support/program.hpp"
#include "apps/support/progress.hpp"
#include "core/parallel.hpp"

int main(int argc, char** argv) {
  using namespace goshawk;
  return run_program("reproduce_cifar", [&] {
    ReproduceOptions options;
    if (!parse_options(argc, argv, options)) return 0;
    if (options.quiet) Progress::silence();
    set_num_threads(options.threads);
    Pipeline(options).run();
    return 0;
  });
}
