-- Settlements that consist of an acknowledgement or a result or both, as they nearly all do: what redis_unit.lua does, for less.
--
-- ARGV: token ('' none is kept), its life in seconds, the life of the results ('' there is none, '0' they stay), unacked, index
--       (both '' where nothing is acknowledged),
--       n, tokens that may go,
--       for each settlement: tag ('' no acknowledgement), key ('' no result), document.
-- Answer: 0 (all applied), or for each settlement 0 (applied), 1 (fenced), or the text of an error. The token remembers it, as 0 or
-- as JSON.
local A, call, try = ARGV, redis.call, redis.pcall
local life, unacked = A[3], A[4]
if A[1] ~= '' then
  local taken = try('SET', A[1], '0', 'NX', 'EX', A[2])
  if not taken then
    local seen = call('GET', A[1])
    return seen == '0' and 0 or cjson.decode(seen)
  end
  -- Acknowledgements alone pass without memory for the token.
  if taken.err and life ~= '' then return taken end
end
local gone, is_gone, n, said, first = {}, {}, 0, nil, 7 + A[6]
for i = first, #A, 3 do
  local tag, key, answer = A[i], A[i + 1], 0
  local held = tag == '' or try('HEXISTS', unacked, tag)
  if held ~= 1 and held ~= true or is_gone[tag] then
    answer = held ~= 0 and held ~= 1 and held.err or 1
  elseif key ~= '' then
    local doc, done = A[i + 2], nil
    -- what is not there needs no look: nearly always
    if life == '0' then done = try('SET', key, doc, 'NX') else done = try('SET', key, doc, 'EX', life, 'NX') end
    if not done then
      -- Is a SUCCESS stored there? Documents begin with their state as Celery writes them; others are decoded.
      local start = try('GETRANGE', key, 0, 63)
      local state
      if start.err then done = start else
        state = start:match('^%s*{%s*"status"%s*:%s*"([^"\\]*)"')
        if not state then
          local ok, old = pcall(cjson.decode, call('GET', key))
          state = ok and type(old) == 'table' and old.status
        end
      end
      if not done and state ~= 'SUCCESS' then
        if life == '0' then done = try('SET', key, doc) else done = try('SETEX', key, life, doc) end
      end
    end
    if done and not done.err then done = try('PUBLISH', key, doc) end
    if type(done) == 'table' and done.err then answer = done.err end
  end
  if answer == 0 then
    if tag ~= '' then
      n = n + 1
      gone[n] = tag
      is_gone[tag] = true
    end
  else
    said = said or {}
    said[(i - first) / 3 + 1] = answer
  end
end
for i = 1, n, 200 do
  local last = math.min(i + 199, n)
  call('HDEL', unacked, unpack(gone, i, last))
  try('ZREM', A[5], unpack(gone, i, last))
end
if first > 7 then try('DEL', unpack(A, 7, first - 1)) end
if not said then return 0 end
for i = 1, (#A - first + 1) / 3 do said[i] = said[i] or 0 end
-- Should this fail, only the protection of a call sent twice is missing.
if A[1] ~= '' then try('SET', A[1], cjson.encode(said), 'EX', A[2]) end
return said
