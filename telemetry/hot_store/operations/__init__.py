"""Functions that change a shard, one module for each subject of the Lua library. Imported by the programs and by
`startup`."""
