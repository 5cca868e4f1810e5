-- Appending records.

local FIXED_KEYS = 11
local FIXED_ARGS = 8

local function read_batches(keys, args)
  local batches, arg, key = {}, FIXED_ARGS + 1, FIXED_KEYS + 1
  for _ = 1, tonumber(args[FIXED_ARGS]) do
    local batch = { name = args[arg], hash = args[arg + 1], number = tonumber(args[arg + 2]), entries = {} }
    local share, entries = tonumber(args[arg + 3]), tonumber(args[arg + 4])
    arg = arg + 5
    if batch.name ~= '' and batch.number == 0 then
      batch.key = keys[key]
      key = key + 1
    end
    if share > 0 then
      batch.share, batch.owner_key = share, keys[key]
      key = key + 1
    end
    for number = 1, entries do
      batch.entries[number] = {
        stream = keys[key],
        device = args[arg],
        count = tonumber(args[arg + 1]),
        records = args[arg + 2],
        candidates = args[arg + 3],
        marks = args[arg + 4],
      }
      arg = arg + 5
      key = key + 1
    end
    batches[#batches + 1] = batch
  end
  return batches, arg, key
end

-- The owners that have a share of devices, with the devices that each sends, and the place of the next argument. nil
-- instead of the owners if there are some and the caller has not named them: it does so once a device is new.
local function read_owners(keys, args, arg, key)
  local count, owners = tonumber(args[arg]), {}
  arg = arg + 1
  if count < 0 then
    return nil, arg
  end
  for number = 1, count do
    local owner, devices = { key = keys[key], share = tonumber(args[arg]), sends = {}, adds = {} }, tonumber(args[arg + 1])
    for place = arg + 2, arg + 1 + devices do
      owner.sends[args[place]] = true
    end
    owners[number] = owner
    arg, key = arg + 2 + devices, key + 1
  end
  return owners, arg
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
      known[names[at]] = value
      if not value then
        new[#new + 1] = names[at]
      end
    end
  end)
  return known, names, new
end

-- How many records there are to store, and how many that are repeats.
local function total_records(batches)
  local total, resent = 0, 0
  for _, batch in ipairs(batches) do
    if batch.status == STORED then
      for _, entry in ipairs(batch.entries) do
        if entry.is_repeat then
          resent = resent + entry.count
        else
          total = total + entry.count
        end
      end
    end
  end
  return total, resent
end

-- The id of a new stream's first entry where the clock was set back: a stream of the same name may have been deleted,
-- and its ids must not come again while an intent names them.
local function above_floor(stream, floor_ms)
  return redis.call('EXISTS', stream) == 0 and string.format('%.0f-0', floor_ms + 1) or '*'
end

-- Appends an entry to its stream. Returns its id, and how many bytes it has.
local function add_entry(entry, wanted_id, first_id)
  local text, marks = string.format('%.0f', first_id), entry.marks
  if marks == '' then
    return redis.call('XADD', entry.stream, wanted_id, 'i', text, 'r', entry.records), 2 + #text + #entry.records
  end
  local size = 3 + #text + #entry.records + #marks
  return redis.call('XADD', entry.stream, wanted_id, 'i', text, 'r', entry.records, 'm', marks), size
end

-- The first prefix of `args` from `at` on, pairs of a prefix and how many devices it may have, for which new devices
-- are too many; nil if there is none.
local function full_prefix(new, devices_key, args, at)
  for position = at, #args, 2 do
    local prefix, adds = args[position], 0
    for _, name in ipairs(new) do
      adds = adds + (string.sub(name, 1, #prefix) == prefix and 1 or 0)
    end
    local known = adds > 0 and redis.call('ZLEXCOUNT', devices_key, '[' .. prefix, '[' .. prefix .. '\255') or 0
    if adds > 0 and known + adds > tonumber(args[position + 1]) then
      return prefix
    end
  end
end

-- Returns the error that refuses more devices than there may be, in all or of a prefix; nil if there is none.
local function refuse_devices(new, devices_key, args, prefixes_at)
  if #new == 0 then
    return nil
  elseif redis.call('ZCARD', devices_key) + #new > tonumber(args[2]) then
    return redis.error_reply('DEVICESFULL')
  end
  local prefix = full_prefix(new, devices_key, args, prefixes_at)
  return prefix and redis.error_reply('SHAREFULL ' .. prefix)
end

local PROBED = 64

-- Removes devices that latest does not have from the set of an owner, of some that are drawn by lot.
local function drop_unknown(key, latest_key, added_by_key)
  local names = redis.call('ZRANDMEMBER', key, PROBED)
  if #names > 0 then
    for place, value in ipairs(redis.call('HMGET', latest_key, unpack(names))) do
      if not value then
        redis.call('ZREM', key, names[place])
        redis.call('HDEL', added_by_key, names[place])
      end
    end
  end
end

local function owner_name(key)
  return string.match(key, ':devices_of:(.*)$')
end

-- Gives each new device to the first owner that sends it. Returns the error that refuses more devices than an owner may
-- add; nil if there is none.
local function refuse_owners(new, owners, latest_key, added_by_key)
  for _, name in ipairs(new) do
    for _, owner in ipairs(owners) do
      if owner.sends[name] then
        owner.adds[#owner.adds + 1] = name
        break
      end
    end
  end
  for _, owner in ipairs(owners) do
    if #owner.adds > 0 and redis.call('ZCARD', owner.key) + #owner.adds > owner.share then
      drop_unknown(owner.key, latest_key, added_by_key)
      if redis.call('ZCARD', owner.key) + #owner.adds > owner.share then
        return redis.error_reply('OWNERFULL ' .. owner_name(owner.key))
      end
    end
  end
end

-- Counts new devices towards the shares of their owners.
local function remember_added(owners, added_by_key, steady_ms, kept_ms)
  for _, owner in ipairs(owners or {}) do
    if #owner.adds > 0 then
      local added, added_by, name_of_owner = {}, {}, owner_name(owner.key)
      for _, name in ipairs(owner.adds) do
        added[#added + 1] = string.format('%.0f', steady_ms)
        added[#added + 1] = name
        added_by[#added_by + 1] = name
        added_by[#added_by + 1] = name_of_owner
      end
      in_pieces(added, function(...) redis.call('ZADD', owner.key, ...) end)
      in_pieces(added_by, function(...) redis.call('HSET', added_by_key, ...) end)
      redis.call('PEXPIRE', owner.key, kept_ms)
    end
  end
end

local function statuses_of(batches)
  local statuses = {}
  for position, batch in ipairs(batches) do
    statuses[position] = batch.status
  end
  return statuses
end

-- Appends the entries of one call to their streams, and offers them to latest: `known`, encoded by device. `number` is
-- the first of the counter of ids. Returns scores and devices for `dirty`, and how many bytes the entries have.
local function store_entries(batches, known, store, now_ms, number)
  local shard, shards, floor_ms = tonumber(store[1]), tonumber(store[2]), tonumber(store[7] or '-1')
  local dirty, last_ms, bytes = {}, 0, 0
  for _, batch in ipairs(batches) do
    for _, entry in ipairs(batch.status == STORED and batch.entries or {}) do
      if entry.is_repeat then
        known[entry.device] = seen_at(known[entry.device], now_ms)
      else
        local first_id = number * shards + shard
        local wanted_id = now_ms <= floor_ms and above_floor(entry.stream, floor_ms) or '*'
        local entry_id, size = add_entry(entry, wanted_id, first_id)
        local received_ms = milliseconds(entry_id)
        known[entry.device] = offer_candidates(known[entry.device], entry, first_id, received_ms, shards)
        dirty[#dirty + 1] = received_ms == last_ms and dirty[#dirty - 1] or string.format('%.0f', received_ms)
        dirty[#dirty + 1] = entry.device
        last_ms, bytes, number = received_ms, bytes + size, number + entry.count
      end
    end
  end
  return dirty, bytes
end

-- Writes the latest of devices, of which `new` were unknown.
local function write_latest(names, new, known, latest_key, devices_key)
  local changed, added = {}, {}
  for _, name in ipairs(names) do
    changed[#changed + 1] = name
    changed[#changed + 1] = known[name]
  end
  in_pieces(changed, function(...) redis.call('HSET', latest_key, ...) end)
  announce(names)
  for _, name in ipairs(new) do
    added[#added + 1] = '0'
    added[#added + 1] = name
  end
  in_pieces(added, function(...) redis.call('ZADD', devices_key, ...) end)
end

-- KEYS: store latest devices dirty unsaved next_id sent_until senders senders_seen recent added_by, then for each batch its
--       sent key if it has an Idempotency-Key, the set of its owner's names if they have a share, and the stream of
--       each entry. Last, the set of each owner's devices.
-- ARGV: store id, most devices, most keys, ms that a key is remembered, most senders, ms that a sender is
--       remembered, '1' if all batches are to be stored or none, number of batches, then for each batch: its
--       Idempotency-Key or its sender's id or '', hash of its body, its sender's number for it or 0, how many names
--       its owner may have or 0, number of entries, and for each entry: device, number of records, the msgpack array of
--       its records, its candidates for latest, its marks or ''. Then the number of owners that have a share of
--       devices, or -1 if they are not named, and for each: its share, number of devices that it sends, and these.
--       Last, pairs of a prefix and how many devices may have it.
-- Returns {status of each batch, the clock's newest_ms, records unsaved now, how many were repeats}; and as fifth those
-- that repeat others while their entry has some that do not, as `find_resent` has them: then nothing was stored.
-- Stores nothing and returns DEVICESFULL if it would bring more devices than may be, SHAREFULL if more of a prefix,
-- OWNERFULL if more of an owner, and NAMEOWNERS if it would bring one and the owners are not named.
-- With nothing to store it writes nothing, and is refused all the same where a write would be.
local function append(keys, args)
  local store =
    redis.call('HMGET', keys[1], 'shard', 'shards', 'newest_ms', 'behind_since_ms', 'jumped_ms', 'clock_ms', 'floor_ms')
  local clock = read_clock(store[3], store[4], store[5], store[6])
  local batches, owners_at, owners_key = read_batches(keys, args)
  local owners, prefixes_at = read_owners(keys, args, owners_at, owners_key)
  decide(batches, keys, args, clock.steady_ms)
  if args[7] == '1' then
    all_or_none(batches)
  end
  local known, names, new = load_latest(batches, keys[2])
  if #new > 0 and not owners then
    return redis.error_reply('NAMEOWNERS')
  end
  local refusal = refuse_devices(new, keys[3], args, prefixes_at) or refuse_owners(new, owners or {}, keys[2], keys[11])
  if refusal then
    return refusal
  end
  local repeats = find_resent(batches, keys[10], known, clock.now_ms)
  if #repeats > 0 then
    return { statuses_of(batches), clock.newest_ms, tonumber(redis.call('GET', keys[5]) or '0'), 0, repeats }
  end

  local total, resent = total_records(batches)
  local number = total > 0 and redis.call('INCRBY', keys[6], total) - total or 0
  local dirty, bytes = store_entries(batches, known, store, clock.now_ms, number)
  remember_stored(batches, keys, args, clock.steady_ms)
  remember_added(owners, keys[11], clock.steady_ms, args[6])
  if total > 0 then
    note_clock(keys[1], clock)
    add_unsaved_bytes(keys[1], bytes)
  end
  in_pieces(dirty, function(...) redis.call('ZADD', keys[4], 'NX', ...) end)
  write_latest(names, new, known, keys[2], keys[3])
  if total > 0 then
    return { statuses_of(batches), clock.newest_ms, redis.call('INCRBY', keys[5], total), resent }
  elseif not redis.acl_check_cmd('INCRBY', keys[5], '0') then
    return redis.error_reply('NOPERM its user may not write')
  end
  return { statuses_of(batches), clock.newest_ms, tonumber(redis.call('GET', keys[5]) or '0'), resent }
end

register('append', of_store(append), {})
