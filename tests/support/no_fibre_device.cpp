// Where Boost.Context is missing, there are no fibres.
#include "common/base/check.h"
#include "common/tensor/cuda/fibres/fibre_device.h"

namespace ninefold {

DeviceHandle make_fibre_device(FibreOrder) { throw UserError("fibres need Boost.Context"); }

}  // namespace ninefold
