-- The one script in which settlements, results and follow-up messages are applied together.
--
-- ARGV: token, its life in seconds, the selected database,
--       n, tokens that may go,
--       n, key sets (database, unacked, index, dead, prefix, separator),
--       n, settlements (number of words that follow, operations).
-- Answer: seconds, microseconds, and for each settlement 0 (applied), 1 (fenced), 2 + a bit for each arrival that
-- completed its header (applied), or the text of an error.
--
-- - A settlement is first checked in all its operations, then applied in all: Lua does not roll back. A failure of one does
--   not touch its neighbours.
-- - Tags are removed last, all at once.
-- - The token remembers the answers of this call, as numbers or, with texts among them, as JSON: sent again (its answer was lost) it changes nothing and says the same.
-- - SELECT before every access whose database is not the selected one; the variable `db` follows exactly what
--   SELECT did, so a neighbour that failed cannot leave us in the wrong one.
-- - No unpack beyond a few hundred values (Lua's stack).
local A, call, at = ARGV, redis.call, 4
local now = call('TIME')
local answers = {tonumber(now[1]), tonumber(now[2])}
-- whether a transaction of pushes alone (redis_call.c) was executed, with this token, whose answer was lost
local pushed = false
local seen = call('GET', A[1])
if seen == 'pushed' then pushed = true
elseif seen then
  if seen:sub(1, 1) == '[' then
    for _, a in ipairs(cjson.decode(seen)) do answers[#answers + 1] = a end
  else
    for a in seen:gmatch('%d+') do answers[#answers + 1] = tonumber(a) end
  end
  return answers
end
local spent = at
at = at + 1 + A[at]
local sets = {}
local n = tonumber(A[at])
at = at + 1
for i = 1, n do
  sets[i] = {db = A[at], unacked = A[at + 1], index = A[at + 2], dead = A[at + 3], prefix = A[at + 4],
             sep = A[at + 5], gone = {}, is_gone = {}}
  at = at + 6
end
local home = A[3]
local db = home
local function use(want)
  if db ~= want then call('SELECT', want) db = want end
end
local function must_be(key, kind)
  local is = call('TYPE', key)['ok']
  if is ~= 'none' and is ~= kind then error('WRONGTYPE ' .. key .. ' is a ' .. is .. ', not a ' .. kind, 0) end
end
local fenced, arrivals, completed
local note, stored = {}, {}
-- what the check of the operation at that word found out for its application; what this settlement has stored, as database and key
local lists_db, lists_key
-- The key that was seen last to be a list, or nothing; whatever may make something else of it forgets that.
-- Is a SUCCESS stored there? Documents begin with their state as Celery writes them; others are decoded.
local function succeeded(key)
  local start = call('GETRANGE', key, 0, 63)
  if start == '' then return false end
  local state = start:match('^%s*{%s*"status"%s*:%s*"([^"\\]*)"')
  if not state then
    local ok, doc = pcall(cjson.decode, call('GET', key))
    state = ok and type(doc) == 'table' and doc.status
  end
  return state == 'SUCCESS'
end
local function held(set, tag)
  if db ~= set.db then use(set.db) end
  if not set.sound then must_be(set.index, 'zset') must_be(set.unacked, 'hash') set.sound = true end
  if set.is_gone[tag] or call('HEXISTS', set.unacked, tag) == 0 then fenced = true end
end
local check, apply, width
-- rarely: a call whose settlements store, push, publish and acknowledge alone does without all this, for making so many functions
-- costs more than what they do. By operation: its check, its application, and of how many words it is.
check, apply = {}, {}
width = {J = 8, Q = 3, T = 5, X = 9, B = 4, K = 5, D = 4, E = 6}
local function remove(set, tag)
  set.gone[#set.gone + 1] = tag
  set.is_gone[tag] = true
end
-- Python's stored pattern (escaped words, .*? and [^\.]) as a Lua pattern.
local function fits(pattern, text)
  local out, i = '', 1
  while i <= #pattern do
    local c = pattern:sub(i, i)
    if pattern:sub(i, i + 2) == '.*?' then out = out .. '.-' i = i + 3
    elseif pattern:sub(i, i + 4) == '[^\\.]' then out = out .. '[^%.]' i = i + 5
    elseif (c == '^' and i == 1) or (c == '$' and i == #pattern) then out = out .. c i = i + 1
    else
      if c == '\\' then i = i + 1 c = pattern:sub(i, i) end
      if c:find('^%p') then c = '%' .. c end
      out = out .. c i = i + 1
    end
  end
  return text:find(out) ~= nil
end
local function bound(set, exchange, topic, key, step)
  local lists, known = {}, {}
  use(set.db)
  for _, m in ipairs(call('SMEMBERS', set.prefix .. '_kombu.binding.' .. exchange)) do
    local a = m:find(set.sep, 1, true)
    local b = a and m:find(set.sep, a + #set.sep, true)
    if b then
      local rk, pattern, queue = m:sub(1, a - 1), m:sub(a + #set.sep, b - 1), m:sub(b + #set.sep)
      local fit = rk == key
      if topic and pattern ~= '' then fit = fits(pattern, key) end
      if fit and not known[queue] then
        known[queue] = true
        lists[#lists + 1] = set.prefix .. queue .. step
      end
    end
  end
  for _, list in ipairs(lists) do must_be(list, 'list') end
  return lists
end
-- Chord parts are members such as [1, "<id>", "SUCCESS", 5]; what they begin with, up to and with the comma behind the id, tells them
-- apart. Celery's workers add theirs without a look at what is there: one that ran again with another result stands there twice.
local function head_of(member)
  local i = member:find('"', 1, true)
  while i do
    i = member:find('["\\]', i + 1)
    if i and member:byte(i) == 34 then return member:sub(1, i) .. ',' end
    i = i and i + 1
  end
  return member
end
-- Add a part to the sorted set, unless it is there; how many there are. Those of one place are in the order of their text, so that a
-- probe of the head alone comes to stand right before the part with that head.
local function rank(j, score, head, member)
  local same = call('ZRANGEBYSCORE', j, score, score, 'LIMIT', 0, 2)
  local found = same[1]
  if #same > 1 then
    call('ZADD', j, score, head)
    local at = call('ZRANK', j, head) + 1
    found = call('ZRANGE', j, at, at)[1]
    call('ZREM', j, head)
  end
  if not found or found:sub(1, #head) ~= head then call('ZADD', j, score, member) end
  return call('ZCARD', j)
end
-- Of the n parts in the sorted set, keep one for each id, which stand together; how many there are then.
local function unlike(j, n)
  local last, twice = nil, {}
  for at = 0, n - 1, 500 do
    for _, m in ipairs(call('ZRANGE', j, at, at + 499)) do
      local head = head_of(m)
      if head == last then twice[#twice + 1] = m end
      last = head
    end
  end
  for _, m in ipairs(twice) do call('ZREM', j, m) end
  return n - #twice
end
-- How many parts of that head are in the list.
local function times(j, head)
  local n = 0
  for at = 0, call('LLEN', j) - 1, 500 do
    for _, m in ipairs(call('LRANGE', j, at, at + 499)) do
      if m:sub(1, #head) == head then n = n + 1 end
    end
  end
  return n
end
-- A list is only ever appended to. The hash .i has the heads of its parts and, under '', how far they were read, so each is read
-- once. The heads are believed when they know nothing of a part; otherwise one looks: Celery's workers, when they complete a chord,
-- leave .i behind, and its header may be sent again.
local function read_on(j, i)
  local at, len, twice = tonumber(call('HGET', i, '') or '0'), call('LLEN', j), {}
  if at > len then call('DEL', i) at = 0 end
  for from = at, len - 1, 500 do
    for _, m in ipairs(call('LRANGE', j, from, from + 499)) do
      if call('HSETNX', i, head_of(m), 1) == 0 then twice[#twice + 1] = m end
    end
  end
  for _, m in ipairs(twice) do
    if times(j, head_of(m)) < 2 then
      call('DEL', i)
      return read_on(j, i)
    end
    call('LREM', j, -1, m)
  end
  call('HSET', i, '', call('LLEN', j))
end
-- Add a part to the list, unless it is there; how many there are.
local function line_up(key, head, member, life)
  local j, i = key .. '.j', key .. '.i'
  read_on(j, i)
  local known = call('HEXISTS', i, head) == 1
  if known and times(j, head) == 0 then
    call('DEL', i)
    read_on(j, i)
    known = false
  end
  if not known then
    call('HSET', i, head, 1)
    call('HSET', i, '', call('RPUSH', j, member))
  end
  call('EXPIRE', i, math.min(life == '0' and 3600 or tonumber(life), 3600)) -- without it the list is read anew
  return call('LLEN', j)
end
local function bury(set, doc, keep)
  use(set.db)
  call('LPUSH', set.dead, doc)
  call('LTRIM', set.dead, 0, keep - 1)
end
check.J = function(i)
  use(A[i + 1])
  must_be(A[i + 2] .. '.j', A[i + 3] == '1' and 'zset' or 'list')
  must_be(A[i + 2] .. '.i', 'hash')
  must_be(A[i + 2] .. '.s', 'string')
  must_be(A[i + 2] .. '.t', 'string')
end
check.Q = function(i)
  use(A[i + 1])
  if call('EXISTS', A[i + 2] .. '.s') == 0 then
    error('CLAIMED the chord ' .. A[i + 2] .. ' is completed already', 0)
  end
end
check.T = function(i)
  use(A[i + 1])
  must_be(A[i + 2] .. '.t', 'string')
  if not tonumber(call('GET', A[i + 2] .. '.t') or '0') then error('ERR ' .. A[i + 2] .. '.t is not a number', 0) end
end
check.X = function(i)
  note[i] = bound(sets[tonumber(A[i + 1])], A[i + 2], A[i + 3] == '1', A[i + 4], A[i + 5])
  if #note[i] == 0 and A[i + 6] == '1' then
    error('UNROUTABLE no queue is bound to the exchange "' .. A[i + 2] .. '" for the routing key "' .. A[i + 4] .. '"', 0)
  end
end
check.B = function(i) use(A[i + 1]) must_be(A[i + 2], 'set') end
check.K = function(i) held(sets[tonumber(A[i + 1])], A[i + 2]) end
check.D = function(i) local set = sets[tonumber(A[i + 1])] use(set.db) must_be(set.dead, 'list') end
check.E = function(i) local set = sets[tonumber(A[i + 1])] use(set.db) must_be(set.dead, 'list') end
apply.J = function(i)
  use(A[i + 1])
  local key, ordered, life = A[i + 2], A[i + 3] == '1', A[i + 7]
  local n = ordered and rank(key .. '.j', A[i + 4], A[i + 5], A[i + 6]) or line_up(key, A[i + 5], A[i + 6], life)
  local size = tonumber(call('GET', key .. '.s') or '')
  local all = size and size + (tonumber(call('GET', key .. '.t') or '') or 0)
  if all and n >= all and (not ordered or unlike(key .. '.j', n) >= all) then completed = completed + 2 ^ arrivals end
  arrivals = arrivals + 1
  if life ~= '0' then for _, k in ipairs({'.j', '.t', '.s'}) do call('EXPIRE', key .. k, life) end end
end
apply.Q = function(i)
  use(A[i + 1])
  for _, k in ipairs({'.j', '.t', '.s', '.i'}) do call('UNLINK', A[i + 2] .. k) end
end
apply.T = function(i)
  use(A[i + 1])
  call('INCRBY', A[i + 2] .. '.t', A[i + 3])
  if A[i + 4] ~= '0' then call('EXPIRE', A[i + 2] .. '.t', A[i + 4]) end
end
apply.X = function(i)
  use(sets[tonumber(A[i + 1])].db)
  for _, list in ipairs(note[i]) do call(A[i + 7], list, A[i + 8]) end
end
apply.B = function(i) use(A[i + 1]) call('SADD', A[i + 2], A[i + 3]) end
apply.K = function(i)
  local set = sets[tonumber(A[i + 1])]
  use(set.db)
  local due, soon = tonumber(A[i + 4]), now[1] + now[2] / 1000000 + 0.001
  if due < soon then due = soon end
  -- "above now until due" is how a parked entry is known to be in time
  call('HSET', set.unacked, A[i + 3], call('HGET', set.unacked, A[i + 2]))
  call('ZADD', set.index, string.format('%.6f', due), A[i + 3])
  remove(set, A[i + 2])
end
apply.D = function(i) bury(sets[tonumber(A[i + 1])], A[i + 2], A[i + 3]) end
apply.E = function(i)
  local set = sets[tonumber(A[i + 1])]
  use(set.db)
  local text = call('HGET', set.unacked, A[i + 2]) or ''
  bury(set, A[i + 3] .. cjson.encode(text) .. A[i + 4], A[i + 5])
end
-- always:
local function settle(from, to)
  local i, n_stored = from, 0
  while i < to do
    local op = A[i]
    if op == 'S' then
      -- The first operation of a settlement is looked at when it is applied: nothing has happened before it.
      if i > from then use(A[i + 1]) note[i] = succeeded(A[i + 2]) end
      i = i + 5
    elseif op == 'A' then
      held(sets[A[i + 1] + 0], A[i + 2])
      i = i + 3
    elseif op == 'P' then
      if lists_key ~= A[i + 2] or lists_db ~= A[i + 1] then
        use(A[i + 1])
        must_be(A[i + 2], 'list')
        lists_db, lists_key = A[i + 1], A[i + 2]
      end
      i = i + 5 + A[i + 4]
    elseif op == 'C' then i = i + 3
    else
      check[op](i)
      i = i + width[op]
    end
    if fenced then return end
  end
  if pushed then return end
  i = from
  while i < to do
    local op = A[i]
    if op == 'S' then
      local key, life, doc, new = A[i + 2], A[i + 3], A[i + 4], false
      use(A[i + 1])
      if i == from then
        -- what is not there needs no look: nearly always
        if life == '0' then new = call('SET', key, doc, 'NX') else new = call('SET', key, doc, 'EX', life, 'NX') end
      end
      local keep = false
      if not new then
        if i == from then keep = succeeded(key)
        elseif note[i] then keep = true
        elseif n_stored > 0 then
          if n_stored == 1 and A[from] == 'S' then stored[A[from + 1] .. ' ' .. A[from + 2]] = from end
          keep = (stored[A[i + 1] .. ' ' .. key] or 0) >= from and succeeded(key)
        end
        if not keep then
          if life == '0' then call('SET', key, doc) else call('SETEX', key, life, doc) end
        end
      end
      if not keep then
        n_stored = n_stored + 1
        if i > from then stored[A[i + 1] .. ' ' .. key] = i end
        call('PUBLISH', key, doc)
      end
      lists_key = nil
      i = i + 5
    elseif op == 'A' then
      local set = sets[A[i + 1] + 0]
      set.gone[#set.gone + 1] = A[i + 2]
      set.is_gone[A[i + 2]] = true
      i = i + 3
    elseif op == 'P' then
      use(A[i + 1])
      call(A[i + 3], A[i + 2], unpack(A, i + 5, i + 4 + A[i + 4]))
      i = i + 5 + A[i + 4]
    elseif op == 'C' then
      call('PUBLISH', A[i + 1], A[i + 2])
      i = i + 3
    else
      lists_key = nil
      apply[op](i)
      i = i + width[op]
    end
  end
end
local told = false
-- whether there are texts among the answers: cjson costs more than a push
n = tonumber(A[at])
at = at + 1
for _ = 1, n do
  local from = at + 1
  at = from + A[at]
  fenced, arrivals, completed = false, 0, 0
  local ok, why = pcall(settle, from, at)
  if not ok then
    if type(why) == 'table' then why = why.err or why[1] end
    answers[#answers + 1] = tostring(why):gsub('^@?user_script:%s*%d+:%s*%-?', '')
    told = true
  -- Redis 6
  else
    answers[#answers + 1] = fenced and 1 or (arrivals > 0 and 2 + completed or 0)
  end
end
for _, set in ipairs(sets) do
  for i = 1, #set.gone, 200 do
    local last = math.min(i + 199, #set.gone)
    use(set.db)
    call('HDEL', set.unacked, unpack(set.gone, i, last))
    call('ZREM', set.index, unpack(set.gone, i, last))
  end
end
use(home)
-- Not before: a script that has written is let past the limit of memory.
for i = 1, tonumber(A[spent]) do call('DEL', A[spent + i]) end
-- Should this fail (no memory), only the protection of a call sent twice is missing.
redis.pcall('SETEX', A[1], A[2], told and cjson.encode({unpack(answers, 3)}) or table.concat(answers, ' ', 3))
return answers
