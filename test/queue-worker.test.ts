/** The queue worker under a virtual clock: when it tries, what it tells, what it never does twice. */
import { afterAll, afterEach, beforeEach, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../src/base/clock.ts'
import { systemDisk } from '../src/base/files.ts'
import { MessageIds, type NodeId, type SpoolId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { LiveConfig } from '../src/config/live.ts'
import { EMPTY_SNAPSHOT } from '../src/config/snapshot.ts'
import { type Progress, QueueWorker } from '../src/mail/queue/worker.ts'
import type { Outcome } from '../src/message/outcome.ts'
import { reply } from '../src/message/reply.ts'
import { Queue } from '../src/store/queue.ts'
import { freshRecipient, type Message } from '../src/store/queued.ts'
import type { Spool } from '../src/store/spool.ts'
import { ManualClock } from './clock.ts'

const root = mkdtempSync(join(tmpdir(), 'postern-worker-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const DELIVERED: Outcome = {
  kind: 'delivered',
  host: 'h',
  tls: null,
  reply: reply(250, '2.0.0', 'ok'),
}
const LATER: Outcome = { kind: 'later', host: 'h', cause: '451 not now', dotSent: false }
const NO_DOT: Outcome = { kind: 'later', host: null, cause: 'no dot', dotSent: false }
const NEVER: Outcome = { kind: 'never', host: 'h', reply: reply(550, '5.1.1', 'no') }

type World = {
  readonly clock: ManualClock
  readonly queue: Queue
  readonly spool: Spool
  readonly worker: QueueWorker
  readonly observer: Observer
  readonly attempts: {
    readonly id: string
    readonly indexes: readonly number[]
    readonly atMs: number
  }[]
  readonly bounces: { readonly kind: string; readonly indexes: readonly number[] }[]
  readonly told: { readonly index: number; readonly what: Progress; readonly detail: string }[]
  answer: (message: Message, index: number) => Outcome
  /** What the cluster says of a message. */
  mayAct: (message: Message) => boolean
  /** Between the TRY and the final dot. */
  meanwhile: (message: Message) => void
  /** Of each attempt, by the next hop, before the dot. */
  refusedPlaces: readonly number[]
  /** A notification is being made. */
  whileTold: (message: Message) => void
  dots: number
  readonly free: (messages: readonly Message[]) => void
}

let count = 0
let world: World

beforeEach(async () => {
  count += 1
  const dir = join(root, String(count))
  mkdirSync(dir)
  const clock = new ManualClock()
  const system = new SystemClock()
  const observer = new Observer(clock, () => {})
  const live = new LiveConfig()
  live.swap({
    ...EMPTY_SNAPSHOT,
    settings: {
      ...EMPTY_SNAPSHOT.settings,
      'queue.first': 300,
      'queue.longest': 4_200,
      'queue.expire': 2,
      'queue.warn': 1,
    },
  })
  // The spool waits for a real disk: it has the real clock, the worker the virtual one.
  const { queue, spool } = await Queue.open(
    {
      dir,
      spoolId: '00000000000000bb' as SpoolId,
      clock: system,
      observer,
      freeSpace: () => ({ freeBytes: 1e12, totalBytes: 1e12 }),
      segmentBytes: 128 * 1024,
      disk: { ...systemDisk, sync: (_, done) => done(null) },
      onFailure: (error) => {
        throw error
      },
    },
    { clock, observer, node: '00000000000000aa' as NodeId },
  )
  const attempts: World['attempts'] = []
  const bounces: World['bounces'] = []
  const told: World['told'] = []
  let free: World['free'] = () => {}
  const worker = new QueueWorker({
    nodeName: (id) => ({ id, name: id }),
    queue,
    live,
    clock,
    random: new SeededRandom(1),
    observer,
    routeKey: (address) => address.slice(address.indexOf('@') + 1),
    attempt: async (message, indexes, { beforeDot, spared, mayDot }) => {
      attempts.push({ id: message.id, indexes: [...indexes], atMs: clock.monoMs() })
      try {
        await beforeDot()
      } catch {
        return indexes.map(() => NO_DOT)
      }
      if (world.refusedPlaces.length > 0) await spared(world.refusedPlaces)
      world.meanwhile(message)
      if (!mayDot()) return indexes.map(() => NO_DOT)
      world.dots += 1
      return indexes.map((index) => world.answer(message, index))
    },
    tenure: {
      mayAct: (message) => world.mayAct(message),
      why: (message) => (world.mayAct(message) ? null : 'it waits'),
      onFreed: (listener) => {
        free = listener
      },
    },
    bounce: async (message, kind, about) => {
      world.whileTold(message)
      bounces.push({ kind, indexes: about.map(({ index }) => index) })
    },
    progress: (_, index, what, detail) => told.push({ index, what, detail }),
  })
  world = {
    clock,
    queue,
    spool,
    worker,
    observer,
    attempts,
    bounces,
    told,
    answer: () => DELIVERED,
    mayAct: () => true,
    meanwhile: () => {},
    refusedPlaces: [],
    whileTold: () => {},
    dots: 0,
    free,
  }
})

afterEach(async () => await world.spool.close())

const ids = new MessageIds('00000000000000aa' as NodeId, 1, new SystemClock())

async function accept(
  addresses: readonly string[],
  notify: string | null = null,
): Promise<Message> {
  const id = ids.next()
  const draft = world.queue.draft(id)
  draft.add(Buffer.from('Subject: x\r\n\r\nx\r\n'))
  const message = await world.queue.commit(
    draft,
    {
      envelope: {
        id,
        receivedMs: world.clock.wallMs(),
        clientIp: '192.0.2.1',
        greeting: 'c',
        protocol: 'ESMTP',
        tls: null,
        outbound: false,
        sender: 'a@x.test',
        eightBit: false,
        smtpUtf8: false,
        ret: null,
        envid: null,
        recipients: addresses.map((address) => ({ address, notify, orcpt: null })),
      },
      prepend: '',
      sizeBytes: 17,
      sha256: '',
      expiresMs: 0,
      facts: { subject: null, from: null, messageId: null, authors: [] },
      verdicts: [],
      judgement: null,
      dsn: false,
      heldMoved: false,
      recipients: addresses.map(() => freshRecipient('queued')),
    },
    null,
  )
  world.worker.add(message)
  await settled()
  return message
}

/** Until no attempt runs: every one ends by itself. */
async function settled(): Promise<void> {
  do await new Promise<void>((resolve) => new SystemClock().after(2, resolve))
  while (world.worker.running > 0)
}

async function advance(ms: number): Promise<void> {
  const step = 30_000
  for (let left = ms; left > 0; left -= step) {
    world.clock.advance(Math.min(step, left))
    if (world.worker.running > 0) await settled()
  }
}

test('recipients of one hop share an attempt, those of another hop have their own', async () => {
  await accept(['a@one.test', 'b@one.test', 'c@two.test'])
  expect(world.attempts.map(({ indexes }) => indexes)).toEqual([[0, 1], [2]])
  expect(world.queue.size).toBe(0)
})

test('only who was deferred is tried again, and the others never twice', async () => {
  world.answer = (_, index) => (index === 1 ? LATER : DELIVERED)
  const message = await accept(['a@one.test', 'b@one.test', 'c@one.test'])
  expect(message.recipients.map(({ state }) => state)).toEqual(['done', 'deferred', 'done'])
  world.answer = () => DELIVERED
  await advance(400_000)
  expect(world.attempts.map(({ indexes }) => indexes)).toEqual([[0, 1, 2], [1]])
  expect(world.queue.size).toBe(0)
})

test('who is refused together is tried together again, whatever was said to each', async () => {
  const said: Outcome = { ...LATER, cause: '450 greylisted' }
  world.answer = (_, index) => (index === 1 ? said : LATER)
  const message = await accept(['a@one.test', 'b@one.test', 'c@one.test'])
  expect(new Set(message.recipients.map(({ nextTryMs }) => nextTryMs)).size).toBe(1)
  expect(message.recipients.map(({ lastReply }) => lastReply)).toEqual([
    '451 not now',
    '450 greylisted',
    '451 not now',
  ])
  await advance(1_200_000)
  expect(world.attempts.map(({ indexes }) => indexes)).toEqual([
    [0, 1, 2],
    [0, 1, 2],
    [0, 1, 2],
  ])
  expect(world.told.length).toBe(9)
  for (const { index, what, detail } of world.told) {
    expect([what, detail]).toEqual(['deferred', index === 1 ? '450 greylisted' : '451 not now'])
  }
})

test('two hops that defer do not multiply each other’s attempts', async () => {
  world.answer = () => LATER
  await accept(['a@one.test', 'b@two.test'])
  await advance(7_000_000)
  const perHop = world.attempts.filter(({ indexes }) => indexes[0] === 0).length
  // 300, 600, 1200, 2400 s, then the last at the expiry of 7200 s: five waits, six attempts.
  expect(perHop).toBeLessThanOrEqual(6)
  expect(world.attempts.length).toBe(2 * perHop)
})

test('what expires goes back once, and a warning went out once before', async () => {
  world.answer = () => LATER
  const message = await accept(['a@one.test'])
  await advance(8_000_000)
  expect(world.bounces).toEqual([
    { kind: 'delay', indexes: [0] },
    { kind: 'failure', indexes: [0] },
  ])
  expect(message.recipients[0]?.lastReply).toContain('5.4.7')
  expect(world.queue.size).toBe(0)
})

test('a refusal for good goes back at once and is not tried again', async () => {
  world.answer = () => NEVER
  await accept(['a@one.test'])
  await advance(1_000_000)
  expect(world.attempts.length).toBe(1)
  expect(world.bounces).toEqual([{ kind: 'failure', indexes: [0] }])
  expect(world.told.map(({ what }) => what)).toEqual(['bounced'])
})

test('a success that was asked for is told when the next hop does not tell it', async () => {
  await accept(['a@one.test'], 'SUCCESS')
  expect(world.bounces).toEqual([{ kind: 'success', indexes: [0] }])
  world.answer = () => ({ ...DELIVERED, dsnPassedOn: true }) as Outcome
  await accept(['a@one.test'], 'SUCCESS')
  expect(world.bounces.length).toBe(1)
})

test('retry now tries at once, and once', async () => {
  world.answer = () => LATER
  const message = await accept(['a@one.test'])
  world.answer = () => DELIVERED
  expect(world.worker.retry(() => true)).toBe(1)
  await settled()
  expect(message.recipients[0]?.state).toBe('done')
  await advance(1_000_000)
  expect(world.attempts.length).toBe(2)
})

test('after a retry the old plan is void: the next attempt waits its full time', async () => {
  world.answer = () => LATER
  await accept(['a@one.test'])
  expect(world.worker.retry(() => true)).toBe(1)
  await settled()
  // The first wait would have ended within 340 s, the second lasts 600 s.
  await advance(500_000)
  expect(world.attempts.length).toBe(2)
  await advance(300_000)
  expect(world.attempts.length).toBe(3)
})

test('after the clock was set back by a day nothing waits longer than the longest wait', async () => {
  world.answer = () => LATER
  const message = await accept(['a@one.test'])
  const [recipient] = message.recipients
  if (recipient !== undefined) recipient.nextTryMs += 86_400_000
  // As after a restart.
  world.queue.messages = () => [message].values()
  world.worker.resume()
  const before = world.attempts.length
  await advance((4_200_000 * 9) / 8 + 1_000)
  expect(world.attempts.length).toBe(before + 1)
})

test('a delivery in doubt waits, is counted when it goes out again, and keeps its bytes', async () => {
  const message = await accept(['a@one.test'])
  const [recipient] = message.recipients
  if (recipient !== undefined) Object.assign(recipient, { state: 'inDoubt', doubtful: true })
  const before = world.attempts.length
  // As after a restart: the queue holds it again.
  world.queue.messages = () => [message].values()
  world.worker.resume()
  await advance(299_000)
  expect(world.attempts.length).toBe(before)
  await advance(2_000)
  expect(world.attempts.length).toBe(before + 1)
  expect(world.observer.count('possible_duplicates_total')).toBe(1)
})

test('a dropped message is not tried again, and goes back only when asked', async () => {
  world.answer = () => LATER
  const quiet = await accept(['a@one.test'])
  const loud = await accept(['b@one.test'])
  expect(await world.worker.drop(quiet, false, reply(550, '5.7.1', 'dropped'))).toBe(true)
  expect(await world.worker.drop(loud, true, reply(550, '5.7.1', 'dropped'))).toBe(true)
  expect(await world.worker.drop(loud, true, reply(550, '5.7.1', 'dropped'))).toBe(false)
  await advance(1_000_000)
  expect(world.attempts.length).toBe(2)
  expect(world.bounces).toEqual([{ kind: 'failure', indexes: [0] }])
  expect(world.queue.size).toBe(0)
})

test('a hop that is down gets one attempt at a time, and its share again when it is back', async () => {
  world.answer = () => LATER
  for (let at = 0; at < 20; at++) await accept([`r${at}@one.test`])
  world.answer = () => DELIVERED
  await advance(500_000)
  expect(world.queue.size).toBe(0)
  expect(world.attempts.length).toBe(40)
})

test('what this node may not act on is not tried until it is freed', async () => {
  let mayAct = false
  world.mayAct = () => mayAct
  const message = await accept(['a@one.test'])
  await advance(1_000_000)
  expect(world.attempts.length).toBe(0)
  expect(world.worker.row(message)).toMatchObject({ waits: 'it waits', state: 'queued' })
  mayAct = true
  world.free([message])
  await advance(1_000)
  expect(world.queue.size).toBe(0)
})

test('freed is also what is another node’s now: nothing of it is planned any more', async () => {
  world.answer = () => LATER
  const message = await accept(['a@one.test'])
  await world.queue.handOver(message, '00000000000000bb' as NodeId, 2)
  world.free([message])
  await advance(10_000_000)
  expect(world.attempts.length).toBe(1)
})

test('taken over in mid-attempt: no dot leaves, and the attempt does not count', async () => {
  let mayAct = true
  world.mayAct = () => mayAct
  world.meanwhile = () => {
    mayAct = false
  }
  const message = await accept(['a@one.test'])
  await advance(1_000)
  expect([world.attempts.length, world.dots]).toEqual([1, 0])
  expect(message.recipients[0]).toMatchObject({ state: 'queued', attempts: 0, doubtful: false })
  await advance(1_000_000)
  expect(world.attempts.length).toBe(1)
  mayAct = true
  world.meanwhile = () => {}
  world.free([message])
  await advance(1_000)
  expect([world.queue.size, world.dots]).toEqual([0, 1])
})

test('nothing expires or bounces while another node may own it', async () => {
  let mayAct = true
  world.mayAct = () => mayAct
  world.answer = () => {
    // The dot is out when it happens.
    mayAct = false
    return NEVER
  }
  const message = await accept(['a@one.test', 'b@one.test'])
  await advance(1_000)
  expect([world.bounces, world.dots]).toEqual([[], 1])
  expect(message.recipients.map(({ state }) => state)).toEqual(['deferred', 'deferred'])
  world.answer = () => LATER
  await advance(10 * 3_600_000)
  expect(world.bounces).toEqual([])
  expect(await world.worker.drop(message, true, reply(550, '5.7.1', 'dropped'))).toBe(false)
  mayAct = true
  world.answer = () => NEVER
  world.free([message])
  await advance(1_000)
  expect(world.bounces).toEqual([{ kind: 'failure', indexes: [0, 1] }])
})

test('a delivery that ends after the message was taken over is on record all the same', async () => {
  let mayAct = true
  world.mayAct = () => mayAct
  world.answer = () => {
    mayAct = false
    return DELIVERED
  }
  const message = await accept(['a@one.test'])
  expect(mayAct).toBe(false)
  expect(world.told).toContainEqual(expect.objectContaining({ index: 0, what: 'delivered' }))
  expect(message.recipients[0]?.state).toBe('done')
})

test('a recipient that another node has served meanwhile gets no dot, the others do', async () => {
  world.meanwhile = ({ recipients }) => {
    const [first] = recipients
    if (first !== undefined) first.state = 'done'
    world.meanwhile = () => {}
  }
  const message = await accept(['a@one.test', 'b@one.test'])
  await advance(1_000)
  expect(world.attempts.map(({ indexes }) => indexes)).toEqual([[0, 1], [1]])
  expect(world.dots).toBe(1)
  expect(message.recipients.map(({ attempts }) => attempts)).toEqual([1, 1])
  expect(world.queue.size).toBe(0)
})

test('who was refused before the dot is not in doubt when the node stops after it', async () => {
  world.refusedPlaces = [1]
  const inDoubt: number[][] = []
  world.meanwhile = ({ tried }) => inDoubt.push([...tried])
  await accept(['a@one.test', 'b@one.test'])
  expect(inDoubt).toEqual([[0]])
})

test('who was refused by the last reply is not in doubt while the sender is being told', async () => {
  world.answer = (_, index) => (index === 1 ? NEVER : index === 2 ? LATER : DELIVERED)
  const inDoubt: number[][] = []
  world.whileTold = ({ tried }) => inDoubt.push([...tried])
  await accept(['a@one.test', 'b@one.test', 'c@one.test'])
  expect(world.bounces).toEqual([{ kind: 'failure', indexes: [1] }])
  expect(inDoubt).toEqual([[]])
})

test('in doubt once: tried again and again, never reported as failed', async () => {
  const message = await accept(['a@one.test', 'b@two.test'])
  void message
  world.answer = () => LATER
  const doubted = await accept(['c@one.test', 'd@one.test'])
  const [first] = doubted.recipients
  if (first !== undefined) Object.assign(first, { state: 'inDoubt', doubtful: true })
  world.worker.add(doubted)
  await advance(4_000_000)
  expect(doubted.recipients.map(({ state }) => state)).toEqual(['inDoubt', 'deferred'])
  world.answer = () => NEVER
  await advance(4_000_000)
  expect(world.bounces).toEqual([{ kind: 'failure', indexes: [1] }])
  expect(world.told.at(-1)).toBeDefined()
  expect(world.told).toContainEqual(expect.objectContaining({ index: 0, what: 'dropped' }))
  expect(world.queue.get(doubted.id)).toBeNull()
})
