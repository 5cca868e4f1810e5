-- Recovery of a store that is older than the archive.

-- Closes the store to everyone but the caller, who alone knows the new id. KEYS: store next_id intent
-- finishing. ARGV: new store id, least next_id.
local function take_over(keys, args)
  redis.call('HSET', keys[1], 'id', args[1], 'rebuild', '1')
  redis.call('HDEL', keys[1], 'trouble')
  if tonumber(redis.call('GET', keys[2]) or '0') < tonumber(args[2]) then
    redis.call('SET', keys[2], args[2])
  end
  redis.call('DEL', keys[3], keys[4])
  return 1
end

-- Replaces all entries of one stream, whose records get new ids, in latest too. KEYS: store stream dirty unsaved
-- next_id latest. ARGV: store id, device, id of the last entry to replace, records that go away and their bytes, then
-- for each new entry: ms of arrival, number of records, the msgpack array of its records, its candidates.
local function replace(keys, args)
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards')
  local kept, kept_bytes, latest = 0, 0, redis.call('HGET', keys[6], args[2])
  for at = 6, #args, 4 do
    local arrival_ms, count = tonumber(args[at]), tonumber(args[at + 1])
    local first_id = (redis.call('INCRBY', keys[5], count) - count) * shape[2] + shape[1]
    local fields = { 'i', string.format('%.0f', first_id), 'r', args[at + 2], 'a', args[at] }
    redis.call('XADD', keys[2], '*', unpack(fields))
    local entry = { records = args[at + 2], candidates = args[at + 3] }
    latest = offer_candidates(latest, entry, first_id, arrival_ms, tonumber(shape[2]))
    kept = kept + count
    kept_bytes = kept_bytes + size_bytes(unpack(fields))
  end
  local ms, sequence = string.match(args[3], '^(%d+)-(%d+)$')
  local is_trimmed, oldest_ms = trim(keys[2], ms .. '-' .. string.format('%.0f', sequence + 1))
  if oldest_ms then
    redis.call('ZADD', keys[3], oldest_ms, args[2])
  elseif is_trimmed then
    redis.call('ZREM', keys[3], args[2])
  end
  redis.call('INCRBY', keys[4], kept - args[4])
  add_unsaved_bytes(keys[1], kept_bytes - args[5])
  if kept > 0 then
    redis.call('HSET', keys[6], args[2], latest)
    announce({ args[2] })
  end
  return kept
end

-- Opens the store again. KEYS: store committed. ARGV: store id, committed.
local function reopen(keys, args)
  redis.call('SET', keys[2], args[2])
  return 1
end

register('take_over', take_over, ALLOW_OOM)
register('replace', of_store(replace), ALLOW_OOM)
register('reopen', of_store(reopen), ALLOW_OOM)
