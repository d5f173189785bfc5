#pragma once
#include "tests/support/cuda_on_host.hpp"
