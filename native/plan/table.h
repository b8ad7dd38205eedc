// Op tables whose entries work out what a call would cost and note it.
#pragma once
#include "plan/plan.h"
#include "temper/ops.h"

namespace temper::plan {

const TemperOps& table(Place place);

}  // namespace temper::plan
