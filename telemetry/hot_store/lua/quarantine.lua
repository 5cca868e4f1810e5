-- The quarantine: entries that could not be saved, and messages that are no records.

-- Takes the oldest out of the quarantine, by XTRIM: XDEL could take any, but mixed they corrupt a stream. Returns
-- true if it had been replayed.
local function drop_oldest(stream, state, replayed)
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  redis.call('HINCRBY', state, 'bytes', -#oldest[2][10])
  redis.call('XTRIM', stream, 'MAXLEN', redis.call('XLEN', stream) - 1)
  return redis.call('SREM', replayed, oldest[1]) == 1
end

-- Keeps five values each of what can't be used, from args[first] on: device, entry id, number of the first record,
-- reason, bytes. Then drops the oldest until all are of at most so many bytes. Returns how many it dropped.
local function keep(stream, state, replayed, args, first, max_bytes)
  local bytes = 0
  for at = first, #args, 5 do
    redis.call('XADD', stream, '*', 'device', args[at], 'entry', args[at + 1], 'i', args[at + 2], 'reason',
      args[at + 3], 'r', args[at + 4])
    bytes = redis.call('HINCRBY', state, 'bytes', #args[at + 4])
    redis.call('HINCRBY', state, 'kept', 1)
  end
  local dropped = 0
  while bytes > max_bytes and redis.call('XLEN', stream) > 1 do
    dropped = dropped + (drop_oldest(stream, state, replayed) and 0 or 1)
    bytes = tonumber(redis.call('HGET', state, 'bytes'))
  end
  redis.call('HINCRBY', state, 'dropped', dropped)
  return dropped
end

-- KEYS: store intent quarantine quarantine_state replayed. ARGV: store id, head of the intent, commit number, most
-- bytes, then for each what `keep` wants.
-- Keeps what an intent can't save, once an intent. Returns how many old ones were dropped, or -1.
local function quarantine(keys, args)
  if not is_intent(keys[2], args[2]) then
    return -1
  end
  if redis.call('HGET', keys[4], 'commit') == args[3] then
    return 0
  end
  redis.call('HSET', keys[4], 'commit', args[3])
  return keep(keys[3], keys[4], keys[5], args, 5, tonumber(args[4]))
end

-- KEYS: store quarantine quarantine_state replayed. ARGV: store id, most bytes, then for each what `keep` wants.
-- Keeps what a collector could not make a record of. Returns how many old ones were dropped.
local function set_aside(keys, args)
  return keep(keys[2], keys[3], keys[4], args, 3, tonumber(args[2]))
end

-- Appends what was in quarantine with new ids, and takes it out, in one. KEYS: store latest devices dirty unsaved
-- next_id quarantine quarantine_state replayed stream deleting. ARGV: store id, id in the quarantine, device, ms of
-- arrival, number of records, the msgpack array of its records, its candidates.
-- Returns how many records were appended; 0 if it is not in the quarantine any more, or about to be deleted.
local function replay(keys, args)
  local found = redis.call('XRANGE', keys[7], args[2], args[2])[1]
  if not found or redis.call('SISMEMBER', keys[9], args[2]) == 1 or is_deleted(found, keys[11]) then
    return 0
  end
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards', 'floor_ms')
  local count, arrival_ms = tonumber(args[5]), tonumber(args[4])
  local first_id = (redis.call('INCRBY', keys[6], count) - count) * shape[2] + shape[1]
  local floor_ms = tonumber(shape[3] or '-1')
  local wanted_id = clock_ms() <= floor_ms and above_floor(keys[10], floor_ms) or '*'
  local fields = { 'i', string.format('%.0f', first_id), 'r', args[6], 'a', args[4] }
  local entry_id = redis.call('XADD', keys[10], wanted_id, unpack(fields))
  local entry = { records = args[6], candidates = args[7] }
  local latest = redis.call('HGET', keys[2], args[3])
  latest = offer_candidates(latest, entry, first_id, arrival_ms, tonumber(shape[2]))
  redis.call('HSET', keys[2], args[3], latest)
  announce({ args[3] })
  redis.call('ZADD', keys[3], 0, args[3])
  redis.call('ZADD', keys[4], 'NX', string.format('%.0f', milliseconds(entry_id)), args[3])
  redis.call('INCRBY', keys[5], count)
  add_unsaved_bytes(keys[1], size_bytes(unpack(fields)))
  redis.call('SADD', keys[9], args[2])
  redis.call('HINCRBY', keys[8], 'replayed', 1)
  local oldest = redis.call('XRANGE', keys[7], '-', '+', 'COUNT', 1)[1]
  while oldest and redis.call('SISMEMBER', keys[9], oldest[1]) == 1 do
    drop_oldest(keys[7], keys[8], keys[9])
    oldest = redis.call('XRANGE', keys[7], '-', '+', 'COUNT', 1)[1]
  end
  return count
end

register('quarantine', of_store(quarantine), ALLOW_OOM)
register('set_aside', of_store(set_aside), ALLOW_OOM)
register('replay', of_store(replay), {})
