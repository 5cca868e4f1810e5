#!lua name=whimbrel_LIBRARY

-- The store of one shard, and what all functions share. The layout of keys is described in keys.py, that of values in
-- entry_codec.py; every key that a function touches is in KEYS, and belongs to one shard. Numbers stay below 2^53, so
-- that Lua's doubles hold them exactly; commit numbers do not, and are compared as text. function_library.py joins the
-- files of this folder and puts the library's name in.

local function register(name, act, flags)
  redis.register_function { function_name = 'whimbrel_LIBRARY_' .. name, callback = act, flags = flags }
end

-- The flags of a function that helps to empty a full memory, and so is not refused then.
local ALLOW_OOM = { 'allow-oom' }

-- Returns a function that refuses to act on a store other than its caller's. KEYS begin with the store's key, ARGV with
-- the id that the caller knows.
local function of_store(act)
  return function(keys, args)
    local id = redis.call('HGET', keys[1], 'id')
    if id ~= args[1] then
      return redis.error_reply('OTHERSTORE ' .. tostring(id))
    end
    return act(keys, args)
  end
end

-- Returns the ms of an entry's id.
local function milliseconds(entry_id)
  return tonumber(string.match(entry_id, '^%d+'))
end

local PIECE = 2000

-- Calls a command whose arguments may be more than Lua's unpack takes, in pieces of an even number.
local function in_pieces(arguments, call)
  for from = 1, #arguments, PIECE do
    call(unpack(arguments, from, math.min(from + PIECE - 1, #arguments)))
  end
end

-- size of unsaved entries -----------------------------------------------------------------------------

-- Returns the size of an entry as entry_codec.py counts it (size_bytes): the names of its fields and their values.
local function size_bytes(...)
  local bytes = 0
  for _, text in ipairs({ ... }) do
    bytes = bytes + #text
  end
  return bytes
end

-- Adds to the bytes of a shard's unsaved entries; what takes away more than there are leaves none.
local function add_unsaved_bytes(store_key, bytes)
  if bytes ~= 0 and redis.call('HINCRBY', store_key, 'unsaved_bytes', string.format('%.0f', bytes)) < 0 then
    redis.call('HSET', store_key, 'unsaved_bytes', '0')
  end
end

-- Takes records and their bytes off what is unsaved. Without a dirty device nothing is: an entry that could not be read
-- was counted as one record.
local function take_off_unsaved(store_key, unsaved_key, dirty_key, records, bytes)
  redis.call('DECRBY', unsaved_key, records)
  add_unsaved_bytes(store_key, -bytes)
  if redis.call('ZCARD', dirty_key) == 0 then
    redis.call('SET', unsaved_key, '0')
    redis.call('HSET', store_key, 'unsaved_bytes', '0')
  end
end

-- setting up --------------------------------------------------------------------------------------------

-- KEYS: store committed next_id. ARGV: new store id, layout, shards, shard, committed, next_id.
-- Returns the store's {id, layout, shards}: those given, unless it was set up before. Beside an archive that
-- has records, latest is to be rebuilt.
local function setup(keys, args)
  if redis.call('EXISTS', keys[1]) == 0 then
    redis.call('HSET', keys[1], 'id', args[1], 'layout', args[2], 'shards', args[3], 'shard', args[4],
      'rebuild', args[5] == '0' and '0' or '1')
    redis.call('SET', keys[2], args[5])
    redis.call('SET', keys[3], args[6])
  end
  return redis.call('HMGET', keys[1], 'id', 'layout', 'shards')
end

-- KEYS: store. ARGV: store id, the layout that its caller found, the one that it knows, new store id, which stops
-- programs of the release before that still run. Returns 1 if it was changed now.
local function upgrade(keys, args)
  if redis.call('HGET', keys[1], 'layout') ~= args[2] then
    return 0
  end
  redis.call('HSET', keys[1], 'layout', args[3], 'id', args[4])
  return 1
end

register('setup', setup, ALLOW_OOM)
register('upgrade', of_store(upgrade), ALLOW_OOM)
