-- Saving: the intent, its trims, and the ids of imports.

local ALLOTTED_S = 86400

-- Guard 1. KEYS: store intent committed finishing. ARGV: store id, committed as the caller knows it,
-- the intent. Returns 1 if it was written, 0 if there is one already or `committed` moved.
local function intend(keys, args)
  if redis.call('EXISTS', keys[2]) == 1 or redis.call('GET', keys[3]) ~= args[2] then
    return 0
  end
  redis.call('SET', keys[2], args[3])
  redis.call('SET', keys[4], '0')
  return 1
end

-- Allots ids for records of an import, which never rest here, and notes that under the caller's token. KEYS: store
-- next_id allotted. ARGV: store id, how many, a token that nobody else has.
-- Returns the first id, as text; the others follow in steps of `shards`.
local function allot(keys, args)
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards')
  local time = redis.call('TIME')
  redis.call('ZREMRANGEBYSCORE', keys[3], '-inf', time[1] - ALLOTTED_S)
  redis.call('ZADD', keys[3], time[1], args[3])
  local number = redis.call('INCRBY', keys[2], args[2]) - args[2]
  return string.format('%.0f', number * shape[2] + shape[1])
end

-- Guard 1 of an import, and that the ids which it was allotted are still allotted: a Redis that was restored since may
-- give them to others. KEYS: store intent committed finishing allotted. ARGV: store id, committed as the caller knows
-- it, the intent, the token. Returns as `intend`, or -1 if the token is not known.
local function intend_allotted(keys, args)
  if not redis.call('ZSCORE', keys[5], args[4]) then
    return -1
  end
  local written = intend(keys, args)
  if written == 1 then
    redis.call('ZREM', keys[5], args[4])
  end
  return written
end

-- Guard 4: true if the stored intent is the caller's. No two intents ever share a commit number, and an
-- intent begins with it, so its first bytes tell.
local function is_intent(intent_key, head)
  return redis.call('GETRANGE', intent_key, 0, #head - 1) == head and #head > 0
end

-- Takes the entries before `after_id` from a stream. Returns whether there were any, and the ms of the oldest that is
-- left, as text, or nil.
local function trim(stream, after_id)
  if redis.call('XTRIM', stream, 'MINID', after_id) == 0 then
    return false
  end
  if redis.call('XLEN', stream) == 0 then
    return true
  end
  local rest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
  return true, string.format('%.0f', milliseconds(rest[1][1]))
end

-- KEYS: store intent committed finishing unsaved dirty recent, then the stream of each device of this chunk.
-- ARGV: store id, head of the intent, number of this chunk, '1' if it is the last, commit number, then for each device:
--       device, the entry id behind its range, how many records that holds, how many bytes, and its last marks: '' if
--       it has none, UNREAD if the caller does not know them.
-- Returns the number of the next chunk, or -1 if the intent or the chunk is not the caller's.
local function finish(keys, args)
  if not is_intent(keys[2], args[2]) or redis.call('GET', keys[4]) ~= args[3] then
    return -1
  end
  local gone, gone_bytes, empty, waiting, recent = 0, 0, {}, {}, {}
  for number = 1, #keys - 7 do
    local at, stream = 6 + (number - 1) * 5, keys[7 + number]
    local marks = args[at + 4] ~= '' and marks_kept(args[at + 4], keys[7], args[at], stream, args[at + 1])
    local is_trimmed, oldest_ms = trim(stream, args[at + 1])
    if is_trimmed and marks then
      recent[#recent + 1] = args[at]
      recent[#recent + 1] = marks
    end
    if is_trimmed then
      gone = gone + tonumber(args[at + 2])
      gone_bytes = gone_bytes + tonumber(args[at + 3])
      if oldest_ms then
        waiting[#waiting + 1] = oldest_ms
        waiting[#waiting + 1] = args[at]
      else
        empty[#empty + 1] = args[at]
      end
    end
  end
  in_pieces(empty, function(...) redis.call('ZREM', keys[6], ...) end)
  in_pieces(waiting, function(...) redis.call('ZADD', keys[6], ...) end)
  in_pieces(recent, function(...) redis.call('HSET', keys[7], ...) end)
  take_off_unsaved(keys[1], keys[5], keys[6], gone, gone_bytes)
  if args[4] == '1' then
    redis.call('SET', keys[3], args[5])
    redis.call('DEL', keys[2], keys[4])
    redis.call('HDEL', keys[1], 'trouble')
    return 0
  end
  return redis.call('INCR', keys[4])
end

-- KEYS: store. ARGV: store id, why a save failed.
local function note_trouble(keys, args)
  redis.call('HSET', keys[1], 'trouble', args[2])
  return 1
end

register('intend', of_store(intend), ALLOW_OOM)
register('allot', of_store(allot), {})
register('intend_allotted', of_store(intend_allotted), ALLOW_OOM)
register('finish', of_store(finish), ALLOW_OOM)
register('note_trouble', of_store(note_trouble), ALLOW_OOM)
