"""What changes a shard, a module for each subject of the Lua library. Imported by the programs and by `startup`."""
