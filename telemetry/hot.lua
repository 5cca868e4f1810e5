#!lua name=whimbrel_LIBRARY

-- The hot store's server-side functions, one shard a call. The layout of keys is described in hot.py, that
-- of values in entries.py; every key that a function touches is in KEYS. Numbers stay below 2^53, so that Lua's
-- doubles hold them exactly; commit numbers do not, and are compared as text. hot.py puts the library's name in.

local NIL = '\192'
local SLOT_HEADER = 34

-- A function that refuses to act on another store than its caller's. KEYS begin with the store's key, ARGV
-- with the id that the caller knows.
local function of_store(act)
  return function(keys, args)
    local found = redis.call('HGET', keys[1], 'id')
    if found ~= args[1] then
      return redis.error_reply('OTHERSTORE ' .. tostring(found))
    end
    return act(keys, args)
  end
end

local function milliseconds(entry_id)
  return tonumber(string.match(entry_id, '^%d+'))
end

-- latest ------------------------------------------------------------------------------------------

local function u64(number)
  return '\207' .. struct.pack('>I8', number)
end

local function new_slot(id, received_ms, timestamp_us, has_fix, record)
  return {
    timestamp_us = timestamp_us,
    received_ms = received_ms,
    has_fix = has_fix,
    bytes = '\149' .. u64(id) .. u64(received_ms) .. u64(timestamp_us) .. (has_fix and '\195' or '\194')
      .. '\198' .. struct.pack('>I4', #record) .. record,
  }
end

-- Returns the slot at `at` (nil, the number 0 or 1, or a table) and where the next one begins.
local function parse_slot(value, at)
  local first = string.byte(value, at)
  if first == 192 then
    return nil, at + 1
  end
  if first <= 1 then
    return first, at + 1
  end
  local received_ms, timestamp_us = struct.unpack('>I8xI8', value, at + 11)
  local length = struct.unpack('>I4', value, at + 30)
  local stop = at + SLOT_HEADER + length
  return {
    timestamp_us = timestamp_us,
    received_ms = received_ms,
    has_fix = string.byte(value, at + 28) == 195,
    bytes = string.sub(value, at, stop - 1),
  }, stop
end

local function parse_latest(value)
  if not value then
    return {}
  end
  local latest, at = {}, 2
  latest.http, at = parse_slot(value, at)
  latest.other, at = parse_slot(value, at)
  latest.fix, at = parse_slot(value, at)
  latest.seen_ms = struct.unpack('>I8', value, at + 1)
  return latest
end

local function slot_bytes(slot)
  if slot == nil then
    return NIL
  end
  return type(slot) == 'number' and string.char(slot) or slot.bytes
end

local function latest_bytes(latest)
  return '\148' .. slot_bytes(latest.http) .. slot_bytes(latest.other) .. slot_bytes(latest.fix)
    .. u64(latest.seen_ms)
end

-- The rule of record.py: replaces().
local function replaces(new, old)
  if old == nil or new.timestamp_us >= old.timestamp_us then
    return true
  end
  return new.timestamp_us < (new.received_ms + 1) * 1000 and new.timestamp_us >= (old.received_ms + 1) * 1000
end

local function offer(latest, new, is_http, is_newest, is_newest_fix)
  local name, number = 'other', 1
  if is_http then
    name, number = 'http', 0
  end
  local fix = latest.fix
  if type(fix) == 'number' then
    fix = fix == 0 and latest.http or latest.other
  end
  if is_newest and replaces(new, latest[name]) then
    if latest.fix == number then
      latest.fix = fix
    end
    latest[name] = new
  end
  if is_newest_fix and replaces(new, fix) then
    latest.fix = latest[name] and latest[name].bytes == new.bytes and number or new
  end
end

-- Offers an entry's candidates (entries.py: candidates()) to its device's latest.
local function offer_candidates(latest, entry, first_id, received_ms, shards)
  local at = 1
  while at <= #entry.candidates do
    local bits, index, offset, length, timestamp_us
    bits, index, offset, length, timestamp_us, at = struct.unpack('>BI2I4I4I8', entry.candidates, at)
    local record = string.sub(entry.records, offset + 1, offset + length)
    local has_fix = bit.band(bits, 8) > 0
    local new = new_slot(first_id + index * shards, received_ms, timestamp_us, has_fix, record)
    offer(latest, new, bit.band(bits, 1) > 0, bit.band(bits, 2) > 0, bit.band(bits, 4) > 0)
  end
  latest.seen_ms = math.max(latest.seen_ms or 0, received_ms)
end

-- append ------------------------------------------------------------------------------------------

local STORED, SEEN, OTHER_BODY, KEYS_FULL, SENDERS_FULL = 0, 1, 2, 3, 4
local FIXED_KEYS = 9
local FIXED_ARGS = 7
local PIECE = 2000
local FORGET_AT_LEAST = 10

-- Calls a command whose arguments may be more than Lua's unpack takes, in pieces of an even number.
local function in_pieces(arguments, call)
  for from = 1, #arguments, PIECE do
    call(unpack(arguments, from, math.min(from + PIECE - 1, #arguments)))
  end
end

local function read_batches(keys, args)
  local batches, arg, key = {}, FIXED_ARGS + 1, FIXED_KEYS + 1
  for _ = 1, tonumber(args[FIXED_ARGS]) do
    local batch = { name = args[arg], hash = args[arg + 1], number = tonumber(args[arg + 2]), entries = {} }
    local entries = tonumber(args[arg + 3])
    arg = arg + 4
    if batch.name ~= '' and batch.number == 0 then
      batch.key = keys[key]
      key = key + 1
    end
    for number = 1, entries do
      batch.entries[number] = {
        stream = keys[key],
        device = args[arg],
        count = tonumber(args[arg + 1]),
        records = args[arg + 2],
        candidates = args[arg + 3],
      }
      arg = arg + 4
      key = key + 1
    end
    batches[#batches + 1] = batch
  end
  return batches
end

-- Decides about a batch with an Idempotency-Key. `named` is what this call knows of them so far.
local function decide_keyed(batch, named, until_key, now_ms, max_keys)
  if named.room == nil then
    redis.call('ZREMRANGEBYSCORE', until_key, '-inf', now_ms)
    named.room = max_keys - redis.call('ZCARD', until_key)
  end
  local known = named.hashes[batch.name] or redis.call('GET', batch.key)
  if known then
    return known == batch.hash and SEEN or OTHER_BODY
  elseif named.room <= 0 then
    return KEYS_FULL
  end
  named.hashes[batch.name] = batch.hash
  named.room = named.room - 1
  return STORED
end

-- Forgets senders not seen since `before_ms`, the longest silent first: a few more than this call may add, so
-- that the rest goes bit by bit.
local function forget_senders(senders_key, seen_key, before_ms, adds)
  local old =
    redis.call('ZRANGE', seen_key, '-inf', before_ms, 'BYSCORE', 'LIMIT', 0, adds + FORGET_AT_LEAST)
  for _, sender in ipairs(old) do
    redis.call('HDEL', senders_key, sender)
    redis.call('ZREM', seen_key, sender)
  end
end

-- The last batch number of a sender, 0 if it is unknown or was silent for too long.
local function last_number(sender, senders_key, seen_key, before_ms)
  local seen_ms = redis.call('ZSCORE', seen_key, sender)
  if not seen_ms or tonumber(seen_ms) <= before_ms then
    return 0
  end
  return tonumber(redis.call('HGET', senders_key, sender) or '0')
end

-- Decides about a sender's batch. `senders` is what this call knows of them so far.
local function decide_numbered(batch, senders, senders_key, seen_key, before_ms, max_senders)
  local last = senders.last[batch.name] or last_number(batch.name, senders_key, seen_key, before_ms)
  if batch.number <= last then
    return SEEN
  end
  if last == 0 and not redis.call('ZSCORE', seen_key, batch.name) then
    senders.room = senders.room or max_senders - redis.call('ZCARD', seen_key)
    if senders.room <= 0 then
      return SENDERS_FULL
    end
    senders.room = senders.room - 1
  end
  senders.last[batch.name] = batch.number
  return STORED
end

local function count_numbered(batches)
  local count = 0
  for _, batch in ipairs(batches) do
    count = count + (batch.number > 0 and 1 or 0)
  end
  return count
end

-- Decides what becomes of each named batch; an earlier one of the same call counts.
local function decide(batches, keys, args, now_ms)
  local named, senders, numbered = { hashes = {} }, { last = {} }, count_numbered(batches)
  local before_ms = now_ms - tonumber(args[6])
  if numbered > 0 then
    forget_senders(keys[8], keys[9], before_ms, numbered)
  end
  for _, batch in ipairs(batches) do
    batch.status = STORED
    if batch.number > 0 then
      batch.status = decide_numbered(batch, senders, keys[8], keys[9], before_ms, tonumber(args[5]))
    elseif batch.name ~= '' then
      batch.status = decide_keyed(batch, named, keys[7], now_ms, tonumber(args[3]))
    end
  end
end

-- Notes that a batch was stored, so that it is known when it comes again.
local function remember(batch, keys, args, now_ms)
  if batch.number > 0 then
    redis.call('HSET', keys[8], batch.name, string.format('%.0f', batch.number))
    redis.call('ZADD', keys[9], string.format('%.0f', now_ms), batch.name)
  elseif batch.name ~= '' then
    redis.call('SET', batch.key, batch.hash, 'PX', args[4])
    redis.call('ZADD', keys[7], now_ms + args[4], batch.name)
  end
end

local function load_latest(batches, latest_key)
  local names, known = {}, {}
  for _, batch in ipairs(batches) do
    if batch.status == STORED then
      for _, entry in ipairs(batch.entries) do
        if known[entry.device] == nil then
          known[entry.device] = false
          names[#names + 1] = entry.device
        end
      end
    end
  end
  local new, at = {}, 0
  in_pieces(names, function(...)
    for _, value in ipairs(redis.call('HMGET', latest_key, ...)) do
      at = at + 1
      known[names[at]] = parse_latest(value)
      if not value then
        new[#new + 1] = names[at]
      end
    end
  end)
  return known, names, new
end

local function total_records(batches)
  local total = 0
  for _, batch in ipairs(batches) do
    if batch.status == STORED then
      for _, entry in ipairs(batch.entries) do
        total = total + entry.count
      end
    end
  end
  return total
end

-- KEYS: store latest devices dirty unsaved next_id sent_until senders senders_seen, then for each batch its
--       sent key if it has an Idempotency-Key, and the stream of each entry.
-- ARGV: store id, most devices, most keys, ms that a key is remembered, most senders, ms that a sender is
--       remembered, number of batches, then for each batch: its Idempotency-Key or its sender's id or '', hash
--       of its body, its sender's number for it or 0, number of entries, and for each entry: device, number of
--       records, the msgpack array of its records, its candidates for latest.
-- Returns {status of each batch, ms of the newest entry, records unsaved now}.
-- Stores nothing and answers DEVICESFULL if it would bring more devices than may be.
local function append(keys, args)
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards')
  local shard, shards = tonumber(shape[1]), tonumber(shape[2])
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local batches = read_batches(keys, args)
  decide(batches, keys, args, now_ms)
  local known, names, new = load_latest(batches, keys[2])
  if #new > 0 and redis.call('ZCARD', keys[3]) + #new > tonumber(args[2]) then
    return redis.error_reply('DEVICESFULL')
  end

  local total = total_records(batches)
  local number = total > 0 and redis.call('INCRBY', keys[6], total) - total or 0
  local statuses, dirty, newest_ms = {}, {}, 0
  for position, batch in ipairs(batches) do
    statuses[position] = batch.status
    if batch.status == STORED then
      for _, entry in ipairs(batch.entries) do
        local first_id = number * shards + shard
        local entry_id =
          redis.call('XADD', entry.stream, '*', 'i', string.format('%.0f', first_id), 'r', entry.records)
        local received_ms = milliseconds(entry_id)
        offer_candidates(known[entry.device], entry, first_id, received_ms, shards)
        dirty[#dirty + 1] = string.format('%.0f', received_ms)
        dirty[#dirty + 1] = entry.device
        number = number + entry.count
        newest_ms = math.max(newest_ms, received_ms)
      end
      remember(batch, keys, args, now_ms)
    end
  end

  if newest_ms > 0 then
    redis.call('HSET', keys[1], 'newest_ms', string.format('%.0f', newest_ms))
  end
  in_pieces(dirty, function(...) redis.call('ZADD', keys[4], 'NX', ...) end)
  local changed, added = {}, {}
  for _, name in ipairs(names) do
    changed[#changed + 1] = name
    changed[#changed + 1] = latest_bytes(known[name])
  end
  in_pieces(changed, function(...) redis.call('HSET', keys[2], ...) end)
  for _, name in ipairs(new) do
    added[#added + 1] = '0'
    added[#added + 1] = name
  end
  in_pieces(added, function(...) redis.call('ZADD', keys[3], ...) end)
  return { statuses, newest_ms, redis.call('INCRBY', keys[5], total) }
end

-- setting up and saving ---------------------------------------------------------------------------

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

-- Guard 4: true if the stored intent is the caller's. No two intents ever share a commit number, and an
-- intent begins with it, so its first bytes tell.
local function is_intent(intent_key, head)
  return redis.call('GETRANGE', intent_key, 0, #head - 1) == head and #head > 0
end

local function trim(stream, dirty_key, device, after_id)
  if redis.call('XTRIM', stream, 'MINID', after_id) == 0 then
    return false
  end
  local rest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
  if #rest == 0 then
    redis.call('ZREM', dirty_key, device)
  else
    redis.call('ZADD', dirty_key, string.format('%.0f', milliseconds(rest[1][1])), device)
  end
  return true
end

-- KEYS: store intent committed finishing unsaved dirty, then the stream of each device of this chunk.
-- ARGV: store id, head of the intent, number of this chunk, '1' if it is the last, commit number, then
--       for each device: device, the entry id behind its range, its number of records.
-- Returns the number of the next chunk, or -1 if the intent or the chunk is not the caller's.
local function finish(keys, args)
  if not is_intent(keys[2], args[2]) or redis.call('GET', keys[4]) ~= args[3] then
    return -1
  end
  local gone = 0
  for number = 1, #keys - 6 do
    local at = 6 + (number - 1) * 3
    if trim(keys[6 + number], keys[6], args[at], args[at + 1]) then
      gone = gone + tonumber(args[at + 2])
    end
  end
  redis.call('DECRBY', keys[5], gone)
  if redis.call('ZCARD', keys[6]) == 0 then -- an entry that could not be read was counted as one record
    redis.call('SET', keys[5], '0')
  end
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

-- Takes the oldest out of the quarantine, by XTRIM: XDEL could take any, but mixed they corrupt a stream. Returns
-- true if it had been replayed.
local function drop_oldest(stream, state, replayed)
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  redis.call('HINCRBY', state, 'bytes', -#oldest[2][10])
  redis.call('XTRIM', stream, 'MAXLEN', redis.call('XLEN', stream) - 1)
  return redis.call('SREM', replayed, oldest[1]) == 1
end

-- KEYS: store intent quarantine quarantine_state replayed. ARGV: store id, head of the intent, commit number, most
-- bytes, then for each: device, entry id, number of the first record, reason, bytes.
-- Keeps what an intent can't save, once an intent. Returns how many old ones were dropped, or -1.
local function quarantine(keys, args)
  if not is_intent(keys[2], args[2]) then
    return -1
  end
  if redis.call('HGET', keys[4], 'commit') == args[3] then
    return 0
  end
  redis.call('HSET', keys[4], 'commit', args[3])
  local bytes = 0
  for at = 5, #args, 5 do
    redis.call('XADD', keys[3], '*', 'device', args[at], 'entry', args[at + 1], 'i', args[at + 2], 'reason',
      args[at + 3], 'r', args[at + 4])
    bytes = redis.call('HINCRBY', keys[4], 'bytes', #args[at + 4])
    redis.call('HINCRBY', keys[4], 'kept', 1)
  end
  local dropped = 0
  while bytes > tonumber(args[4]) and redis.call('XLEN', keys[3]) > 1 do
    dropped = dropped + (drop_oldest(keys[3], keys[4], keys[5]) and 0 or 1)
    bytes = tonumber(redis.call('HGET', keys[4], 'bytes'))
  end
  redis.call('HINCRBY', keys[4], 'dropped', dropped)
  return dropped
end

-- Appends what was in quarantine with new ids, and takes it out, in one. KEYS: store latest devices dirty unsaved
-- next_id quarantine quarantine_state replayed stream. ARGV: store id, id in the quarantine, device, ms of arrival,
-- number of records, the msgpack array of its records, its candidates.
-- Returns how many records were appended; 0 if it is not in the quarantine any more.
local function replay(keys, args)
  local is_there = #redis.call('XRANGE', keys[7], args[2], args[2]) > 0
  if not is_there or redis.call('SISMEMBER', keys[9], args[2]) == 1 then
    return 0
  end
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards')
  local count, arrival_ms = tonumber(args[5]), tonumber(args[4])
  local first_id = (redis.call('INCRBY', keys[6], count) - count) * shape[2] + shape[1]
  local entry_id =
    redis.call('XADD', keys[10], '*', 'i', string.format('%.0f', first_id), 'r', args[6], 'a', args[4])
  local latest = parse_latest(redis.call('HGET', keys[2], args[3]))
  offer_candidates(latest, { records = args[6], candidates = args[7] }, first_id, arrival_ms, tonumber(shape[2]))
  redis.call('HSET', keys[2], args[3], latest_bytes(latest))
  redis.call('ZADD', keys[3], 0, args[3])
  redis.call('ZADD', keys[4], 'NX', string.format('%.0f', milliseconds(entry_id)), args[3])
  redis.call('INCRBY', keys[5], count)
  redis.call('SADD', keys[9], args[2])
  redis.call('HINCRBY', keys[8], 'replayed', 1)
  local oldest = redis.call('XRANGE', keys[7], '-', '+', 'COUNT', 1)[1]
  while oldest and redis.call('SISMEMBER', keys[9], oldest[1]) == 1 do
    drop_oldest(keys[7], keys[8], keys[9])
    oldest = redis.call('XRANGE', keys[7], '-', '+', 'COUNT', 1)[1]
  end
  return count
end

-- recovering --------------------------------------------------------------------------------------

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
-- next_id latest. ARGV: store id, device, id of the last entry to replace, records that go away, then for each
-- new entry: ms of arrival, number of records, the msgpack array of its records, its candidates.
local function replace(keys, args)
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards')
  local kept, latest = 0, parse_latest(redis.call('HGET', keys[6], args[2]))
  for at = 5, #args, 4 do
    local arrival_ms, count = tonumber(args[at]), tonumber(args[at + 1])
    local first_id = (redis.call('INCRBY', keys[5], count) - count) * shape[2] + shape[1]
    redis.call('XADD', keys[2], '*', 'i', string.format('%.0f', first_id), 'r', args[at + 2], 'a', args[at])
    local entry = { records = args[at + 2], candidates = args[at + 3] }
    offer_candidates(latest, entry, first_id, arrival_ms, tonumber(shape[2]))
    kept = kept + count
  end
  local ms, sequence = string.match(args[3], '^(%d+)-(%d+)$')
  trim(keys[2], keys[3], args[2], ms .. '-' .. string.format('%.0f', sequence + 1))
  redis.call('INCRBY', keys[4], kept - args[4])
  if kept > 0 then
    redis.call('HSET', keys[6], args[2], latest_bytes(latest))
  end
  return kept
end

-- Opens the store again. KEYS: store committed. ARGV: store id, committed.
local function reopen(keys, args)
  redis.call('SET', keys[2], args[2])
  return 1
end

-- rebuilding latest -------------------------------------------------------------------------------

-- Offers records of the archive to their devices' latest. KEYS: store latest devices. ARGV: store id, then for
-- each record: device, id, ms of arrival, timestamp, flags as in offer_candidates, the record's bytes, ms at
-- which the device was last seen.
local function offer_archived(keys, args)
  for at = 2, #args, 7 do
    local device, bits = args[at], tonumber(args[at + 4])
    local latest = parse_latest(redis.call('HGET', keys[2], device))
    local received_ms = tonumber(args[at + 2])
    local new = new_slot(tonumber(args[at + 1]), received_ms, tonumber(args[at + 3]), bit.band(bits, 8) > 0, args[at + 5])
    offer(latest, new, bit.band(bits, 1) > 0, bit.band(bits, 2) > 0, bit.band(bits, 4) > 0)
    latest.seen_ms = math.max(latest.seen_ms or 0, tonumber(args[at + 6]))
    redis.call('HSET', keys[2], device, latest_bytes(latest))
    redis.call('ZADD', keys[3], 0, device)
  end
  return 1
end

-- KEYS: store. ARGV: store id. Notes that latest was rebuilt.
local function rebuilt(keys)
  redis.call('HSET', keys[1], 'rebuild', '0')
  return 1
end

local function register(name, act, flags)
  redis.register_function { function_name = 'whimbrel_LIBRARY_' .. name, callback = act, flags = flags }
end

-- What may grow without end may be refused when memory is full; all others help to empty it.
register('append', of_store(append), {})
register('setup', setup, { 'allow-oom' })
register('intend', of_store(intend), { 'allow-oom' })
register('finish', of_store(finish), { 'allow-oom' })
register('note_trouble', of_store(note_trouble), { 'allow-oom' })
register('quarantine', of_store(quarantine), { 'allow-oom' })
register('replay', of_store(replay), {})
register('take_over', take_over, { 'allow-oom' })
register('replace', of_store(replace), { 'allow-oom' })
register('reopen', of_store(reopen), { 'allow-oom' })
register('offer_archived', of_store(offer_archived), {})
register('rebuilt', of_store(rebuilt), { 'allow-oom' })
