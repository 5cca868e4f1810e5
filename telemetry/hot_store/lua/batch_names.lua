-- Named batches, each stored once: by an Idempotency-Key, or by a sender's number.

local STORED, SEEN, OTHER_BODY, KEYS_FULL, SENDERS_FULL, APART, SHARE_FULL = 0, 1, 2, 3, 4, 5, 6

local FORGET_AT_LEAST = 10

-- True if the owner of a new name has its share already; else the name is counted. `counts` is what this call knows.
local function is_share_full(batch, counts, before_ms)
  if not batch.share then
    return false
  end
  local key = batch.owner_key
  if not counts[key] then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', before_ms)
    counts[key] = redis.call('ZCARD', key)
  end
  if counts[key] >= batch.share then
    return true
  end
  counts[key] = counts[key] + 1
  return false
end

-- Decides about a batch with an Idempotency-Key. `named` is what this call knows of them so far.
local function decide_keyed(batch, named, until_key, steady_ms, max_keys)
  if named.room == nil then
    redis.call('ZREMRANGEBYSCORE', until_key, '-inf', steady_ms)
    named.room = max_keys - redis.call('ZCARD', until_key)
  end
  local known = named.hashes[batch.name] or redis.call('GET', batch.key)
  if known then
    return known == batch.hash and SEEN or OTHER_BODY
  elseif named.room <= 0 then
    return KEYS_FULL
  elseif is_share_full(batch, named.of, steady_ms) then
    return SHARE_FULL
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
    elseif is_share_full(batch, senders.of, before_ms) then
      return SHARE_FULL
    end
    batch.is_new = true
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
local function decide(batches, keys, args, steady_ms)
  local named, senders, numbered = { hashes = {}, of = {} }, { last = {}, of = {} }, count_numbered(batches)
  local before_ms = steady_ms - tonumber(args[6])
  if numbered > 0 then
    forget_senders(keys[8], keys[9], before_ms, numbered)
  end
  for _, batch in ipairs(batches) do
    batch.status = STORED
    if batch.number > 0 then
      batch.status = decide_numbered(batch, senders, keys[8], keys[9], before_ms, tonumber(args[5]))
    elseif batch.name ~= '' then
      batch.status = decide_keyed(batch, named, keys[7], steady_ms, tonumber(args[3]))
    end
  end
end

-- Has none stored if one may not be.
local function all_or_none(batches)
  local is_whole = true
  for _, batch in ipairs(batches) do
    is_whole = is_whole and batch.status == STORED
  end
  for _, batch in ipairs(batches) do
    batch.status = not is_whole and batch.status == STORED and APART or batch.status
  end
end

-- Notes that a batch was stored, so that it is known when it comes again.
local function remember(batch, keys, args, steady_ms)
  if batch.number > 0 then
    redis.call('HSET', keys[8], batch.name, string.format('%.0f', batch.number))
    redis.call('ZADD', keys[9], string.format('%.0f', steady_ms), batch.name)
    if batch.share then
      redis.call('ZADD', batch.owner_key, batch.is_new and 'NX' or 'XX', string.format('%.0f', steady_ms), batch.name)
      redis.call('PEXPIRE', batch.owner_key, args[6])
    end
  elseif batch.name ~= '' then
    redis.call('SET', batch.key, batch.hash, 'PX', args[4])
    redis.call('ZADD', keys[7], steady_ms + args[4], batch.name)
    if batch.share then
      redis.call('ZADD', batch.owner_key, steady_ms + args[4], batch.name)
      redis.call('PEXPIRE', batch.owner_key, args[4])
    end
  end
end

local function remember_stored(batches, keys, args, steady_ms)
  for _, batch in ipairs(batches) do
    if batch.status == STORED then
      remember(batch, keys, args, steady_ms)
    end
  end
end
