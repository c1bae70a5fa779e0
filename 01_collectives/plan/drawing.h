// A simulated plan as a picture: what every rank holds after each step, and the messages between.
#pragma once

#include <string>

#include "01_collectives/plan/simulate.h"

namespace ninefold::collectives {

// The text of an SVG file. From left to right the beginning and the steps, from top to bottom the ranks. A cell is a
// rank's version of a chunk: coloured as the rank whose data it holds or, where data are added, with a strip for each
// rank whose contribution it has. A heavy frame: changed in this step. An arrow: a message, with its chunk.
std::string drawing(Operation operation, const Simulation& simulation);

// What the columns of a rank's row stand for: the chunks, but in an all_to_all those that are for this rank, by sender.
int columns_of(Operation operation, const Simulation& simulation);
int chunk_in_column(Operation operation, int rank, int column, int ranks);

// "c2", or "c2-c0" for neighbours, counted around.
std::string name_of(Chunks chunks, int of);

}  // namespace ninefold::collectives
