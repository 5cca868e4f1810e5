-- Deleting a device.

local COUNTED = 200

-- What stands in `deleting` of a device (deletions.py), or nil.
local function read_mark(text)
  if not text then
    return nil
  end
  local name, before_id, aside, generation = string.match(text, '^(%S+) (%d+) (%S+) (%d+)$')
  return { name = name, before_id = tonumber(before_id), aside = aside, generation = generation }
end

local function is_at_most(one, other)
  local one_ms, one_sequence = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_sequence = string.match(other, '^(%d+)-(%d+)$')
  if one_ms ~= other_ms then
    return tonumber(one_ms) < tonumber(other_ms)
  end
  return tonumber(one_sequence) <= tonumber(other_sequence)
end

-- Whether an entry of the quarantine came, or its records were accepted, before its device was deleted.
local function is_before(entry, mark)
  local first_id = tonumber(entry[2][6])
  return is_at_most(entry[1], mark.aside) or (first_id > 0 and first_id < mark.before_id)
end

local function is_deleted(entry, deleting_key)
  local mark = read_mark(redis.call('HGET', deleting_key, entry[2][2]))
  return mark and is_before(entry, mark)
end

-- How many records the msgpack array of an entry holds; of what is none, one: as `finish` counts it.
local function count_in(records)
  local first = string.byte(records, 1) or 0
  if first >= 144 and first <= 159 then
    return first - 144
  end
  return first == 220 and #records >= 3 and struct.unpack('>I2', records, 2) or 1
end

-- How many records a stream holds, and how many bytes.
local function count_waiting(stream)
  local records, bytes, from = 0, 0, '-'
  while true do
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', COUNTED)
    for _, entry in ipairs(page) do
      local fields, data = entry[2], ''
      for at = 1, #fields, 2 do
        data = fields[at] == 'r' and fields[at + 1] or data
        bytes = bytes + #fields[at] + #fields[at + 1]
      end
      records = records + count_in(data)
    end
    if #page < COUNTED then
      return records, bytes
    end
    from = '(' .. page[#page][1]
  end
end

local function last_id(stream)
  local found = redis.call('XINFO', 'STREAM', stream)
  for at = 1, #found, 2 do
    if found[at] == 'last-generated-id' then
      return found[at + 1]
    end
  end
end

-- Deletes a device's stream. Returns how many records that held, and how many bytes.
local function drop_stream(store_key, stream)
  if redis.call('EXISTS', stream) == 0 then
    return 0, 0
  end
  local records, bytes = count_waiting(stream)
  local last_ms = milliseconds(last_id(stream))
  if last_ms > tonumber(redis.call('HGET', store_key, 'floor_ms') or '-1') then
    redis.call('HSET', store_key, 'floor_ms', string.format('%.0f', last_ms))
  end
  redis.call('UNLINK', stream)
  return records, bytes
end

-- KEYS: store latest devices dirty unsaved next_id allotted quarantine deleting stream deletion recent added_by devices_of.
-- ARGV: store id, device, name of the deletion: that of the one under way, if there is; the owner that added the device,
-- whose set of devices is the last key, or ''.
-- Returns 1; 0 if there is no such device; -1 if another deletion of it is under way, or another owner added it.
-- From here on the device is as if it had never been, but for what is saved of it, and being saved; `deleting` says
-- what of that goes: what has an id below the next one. Ids that were allotted to imports are taken back, so that
-- nothing can come any more that has a lower one, except by an intent that stands.
local function forget(keys, args)
  local device, name = args[2], args[3]
  local mark = read_mark(redis.call('HGET', keys[9], device))
  if mark and mark.name ~= name then
    return -1
  elseif (redis.call('HGET', keys[13], device) or '') ~= args[4] then
    return -1
  end
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards', 'rebuild')
  local is_known = mark or shape[3] == '1' or redis.call('HEXISTS', keys[2], device) == 1
    or redis.call('ZSCORE', keys[3], device) or redis.call('EXISTS', keys[10]) == 1
  if not is_known then
    return 0
  end
  local records, bytes = drop_stream(keys[1], keys[10])
  redis.call('HDEL', keys[2], device)
  redis.call('HDEL', keys[12], device)
  redis.call('HDEL', keys[13], device)
  redis.call('ZREM', keys[14], device)
  redis.call('ZREM', keys[3], device)
  redis.call('ZREM', keys[4], device)
  take_off_unsaved(keys[1], keys[5], keys[4], records, bytes)
  redis.call('DEL', keys[7])
  local before_id = tonumber(redis.call('GET', keys[6]) or '0') * shape[2] + shape[1]
  local aside = redis.call('EXISTS', keys[8]) == 1 and last_id(keys[8]) or '0-0'
  local generation = mark and mark.generation + 1 or 1
  redis.call('HSET', keys[9], device, string.format('%s %.0f %s %d', name, before_id, aside, generation))
  redis.call('HSETNX', keys[11], 'asked_ms', string.format('%.0f', clock_ms()))
  redis.call('HSET', keys[11], 'state', 'queued')
  redis.call('HINCRBY', keys[11], 'waiting_records', records)
  announce({ device })
  return 1
end

-- KEYS: store quarantine quarantine_state replayed deleting. ARGV: store id, device.
-- Takes what is of a device that is being deleted out of the quarantine: its stream is made anew, since XDEL would
-- corrupt it. Returns how many entries that were.
local function cleanse(keys, args)
  local mark = read_mark(redis.call('HGET', keys[5], args[2]))
  if not mark or redis.call('EXISTS', keys[2]) == 0 then
    return 0
  end
  local newest, kept, gone = last_id(keys[2]), {}, 0
  for _, entry in ipairs(redis.call('XRANGE', keys[2], '-', '+')) do
    if entry[2][2] == args[2] and is_before(entry, mark) then
      gone = gone + 1
      redis.call('HINCRBY', keys[3], 'bytes', -#entry[2][10])
      redis.call('SREM', keys[4], entry[1])
    else
      kept[#kept + 1] = entry
    end
  end
  if gone == 0 then
    return 0
  end
  redis.call('UNLINK', keys[2])
  for _, entry in ipairs(kept) do
    redis.call('XADD', keys[2], entry[1], unpack(entry[2]))
  end
  if #kept == 0 then
    redis.call('XADD', keys[2], 'MAXLEN', 0, newest, 'device', '')
  else
    redis.call('XSETID', keys[2], newest)
  end
  redis.call('HINCRBY', keys[3], 'deleted', gone)
  return gone
end

-- KEYS: store deletion. ARGV: store id, the version of the table that is noted as the caller knows it, then fields and
-- values. Returns 1 if they were noted, 0 if another worker was as far meanwhile.
local function note_deletion(keys, args)
  if (redis.call('HGET', keys[2], 'version') or '') ~= args[2] or redis.call('EXISTS', keys[2]) == 0 then
    return 0
  end
  redis.call('HSET', keys[2], unpack(args, 3))
  return 1
end

-- KEYS: store deleting deletion left. ARGV: store id, device, what stands in `deleting` of it as the caller knows it,
-- s that the deletion is remembered, then the files that may hold its records and are to be swept.
-- Ends a deletion, if it was not asked for again meanwhile: nothing names the device any more. Returns 1, or 0.
local function complete(keys, args)
  if redis.call('HGET', keys[2], args[2]) ~= args[3] then
    return 0
  end
  redis.call('HDEL', keys[2], args[2])
  redis.call('HINCRBY', keys[1], 'deleted', 1)
  redis.call('HSET', keys[3], 'state', 'done', 'done_ms', string.format('%.0f', clock_ms()), 'to_look_at', '0')
  redis.call('HDEL', keys[3], 'trouble')
  redis.call('EXPIRE', keys[3], args[4])
  redis.call('DEL', keys[4])
  for at = 5, #args do
    redis.call('SADD', keys[4], args[at])
  end
  redis.call('EXPIRE', keys[4], args[4])
  return 1
end

register('forget', of_store(forget), ALLOW_OOM)
register('cleanse', of_store(cleanse), ALLOW_OOM)
register('note_deletion', of_store(note_deletion), ALLOW_OOM)
register('complete', of_store(complete), ALLOW_OOM)
