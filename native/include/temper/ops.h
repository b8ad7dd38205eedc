// The op table, the same for every backend. What an op computes and takes is declared in ops.def: start reading there.
#pragma once
#include "temper/ops.generated.h"

// The table as one text: two libraries that agree on it agree on every op and every argument.
#define TEMPER_OP_LINE(name, arguments, rule) #name " " arguments "\n"
#define TEMPER_OP_TEXT TEMPER_OP_CONTRACTS(TEMPER_OP_LINE)
