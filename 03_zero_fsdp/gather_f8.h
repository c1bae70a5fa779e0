// The 8-bit all_gather, an experiment: values travel as e4m3, one byte each, with one scale a unit. All ranks must
// round alike, so they share the largest magnitude of each unit, by one all_reduce before the first step and one after
// every update. What layers compute with is off by the rounding; what is owned and updated is not. (As torchao's float8
// all-gather for FSDP2; Micikevicius et al. 2022, FP8 Formats for Deep Learning, arXiv 2209.05433)
#pragma once

#include <memory>
#include <vector>

#include "03_zero_fsdp/unit.h"
#include "common/comm/mesh.h"

namespace ninefold {

using Units = std::vector<std::unique_ptr<Unit>>;

// For each mesh dimension along which ranks hold different parts of these parameters, by their placements: this rank's
// group, where it is of more ranks than one.
std::vector<Group> groups_of_parts(const std::vector<Parameter*>& parameters, const Mesh& mesh);

// From the largest magnitudes of what this rank owns of several sets of parameters, the largest of all ranks' of these
// groups: one all_reduce a group. Infinity and NaN count as larger than all numbers.
std::vector<float> share_largest(const std::vector<std::vector<Parameter*>>& parameters,
                                 const std::vector<Group>& groups, const DeviceHandle& device);

// Gives every unit the scale that brings the largest of its values, on whichever rank of these groups, to the largest
// number of the type. Throws UserError on all ranks if a value on any is not finite.
void share_scales(const Units& units, const std::vector<Group>& groups, const DeviceHandle& device);

// Does to a whole model what gathering does: `whole`, which has the parameters of the units by name, gets values from
// its owned values.
void round_as_gathered(const Units& units, const std::vector<Parameter*>& whole);

// How far gathered values are from those owned: the norm of the difference by the norm of the values, over all units
// and the ranks of these groups.
double gather_error(const Units& units, const std::vector<Group>& groups);

}  // namespace ninefold
