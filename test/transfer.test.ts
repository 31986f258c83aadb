/** A node that drains or leaves: its queue goes to others, once, whatever is lost on the way. */
import { expect, test } from 'bun:test'
import { MessageIds, type NodeId } from '../src/base/ids.ts'
import { LinkCalls } from '../src/cluster/calls.ts'
import { MESSAGE, type Member } from '../src/cluster/contract.ts'
import { Transfer } from '../src/cluster/transfer.ts'
import { encodeAsk, marksOf, readAsk, rowOf } from '../src/cluster/transfer-wire.ts'
import type { Message } from '../src/store/queued.ts'
import { MemoryCopies } from './copy-store.ts'
import { Mesh, type MeshNode } from './mesh.ts'

type Standing = Pick<Member, 'drain' | 'standing'>

/** One node: its queue, and what it was told. */
class Side {
  readonly node: MeshNode
  readonly store: MemoryCopies
  readonly transfer: Transfer
  readonly ids: MessageIds
  readonly rests: boolean[] = []
  readonly taken: Message[] = []
  readonly freed: Message[] = []
  busy = 0
  held = 0
  refusal: string | null = null
  barred = new Set<Message>()
  lost = new Set<NodeId>()
  /** What a copy is given to. */
  gives: Side | null = null

  constructor(world: World, node: MeshNode) {
    this.node = node
    this.store = new MemoryCopies(node.id, node)
    this.ids = new MessageIds(node.id, 1, node)
    const calls = new LinkCalls(node.links, { clock: node, observer: node.observer })
    const { roster } = node
    this.transfer = new Transfer({
      clock: node,
      observer: node.observer,
      patience: { drainMs: 90_000 },
      store: this.store,
      calls,
      roster: {
        self: roster.self,
        peers: () => roster.peers().map((member) => world.memberOf(member)),
        get: (id) => {
          const member = roster.get(id)
          return member === null ? null : world.memberOf(member)
        },
        onChange: (listener) => world.listeners.push(listener),
        setDrain: (id, drain) => world.set(id, { drain }),
        markLeft: (id) => world.set(id, { standing: 'left' }),
      },
      members: { isUsable: (id) => node.links.open.has(id) },
      tenure: { mayAct: (message) => !this.barred.has(message) },
      give: async (message) => {
        this.gives?.store.keepOf(message)
        return this.gives?.node.id ?? null
      },
      mail: {
        rest: (on) => this.rests.push(on),
        busy: () => this.busy,
        heldLeft: () => this.held,
      },
      refuses: () => this.refusal,
      taken: (messages) => this.taken.push(...messages),
      isLost: (id) => this.lost.has(id),
    })
    this.transfer.onFreed((messages) => this.freed.push(...messages))
  }

  accept(recipients: number, ...holders: readonly Side[]): Message {
    return this.store.accept(this.ids.next(), recipients, ...holders.map(({ store }) => store))
  }

  /** Would deliver it now. */
  acts(message: Message): boolean {
    const own = this.store.get(message.id)
    return own !== null && this.transfer.mayAct(own)
  }
}

class World {
  readonly mesh = new Mesh()
  readonly standings = new Map<NodeId, Standing>()
  readonly listeners: (() => void)[] = []
  readonly sides: readonly Side[]

  constructor(count: number) {
    this.mesh.add(count)
    this.mesh.join()
    this.sides = this.mesh.nodes.map((node) => new Side(this, node))
  }

  memberOf(member: Member): Member {
    return { ...member, ...this.standings.get(member.node) }
  }

  set(node: NodeId, change: Partial<Standing>): void {
    const before = this.standings.get(node) ?? { drain: 'accepting', standing: 'member' }
    this.standings.set(node, { ...before, ...change })
    for (const listener of this.listeners) listener()
  }

  drain(side: Side): void {
    this.set(side.node.id, { drain: 'draining' })
  }

  stateOf(side: Side): Standing | undefined {
    return this.standings.get(side.node.id)
  }

  /** The first of that type between them is lost, and their link with it. */
  loseFirst(from: Side, to: Side, type: number): void {
    let isLost = false
    this.mesh.fate = (sender, _to, message) => {
      if (sender !== from.node.id || message.type !== type || isLost) return { delayMs: 0 }
      isLost = true
      this.mesh.unlink(from.node, to.node)
      return null
    }
  }

  /** Runs, and sees to it that a message never has two nodes that would deliver it. */
  async run(ms: number, ...messages: readonly Message[]): Promise<void> {
    const untilMs = this.mesh.clock.nowMs + ms
    while (this.mesh.clock.nowMs < untilMs) {
      await this.mesh.runAsync(
        Math.min(messages.length > 0 ? 1 : 50, untilMs - this.mesh.clock.nowMs),
      )
      for (const message of messages) {
        expect(this.sides.filter((side) => side.acts(message)).length).toBeLessThan(2)
      }
    }
  }
}

function world(count: number): { readonly all: World; readonly sides: readonly Side[] } {
  const all = new World(count)
  return { all, sides: all.sides }
}

test('a drained node has nothing left, and each message one owner who had its copy', async () => {
  const { all, sides } = world(3)
  const [a, b, c] = sides as [Side, Side, Side]
  const messages = [a.accept(1, b), a.accept(1, c), a.accept(2, b, c)]
  all.drain(a)
  expect(a.rests.at(-1)).toBe(true)
  await all.run(2_000, ...messages)
  expect(all.stateOf(a)?.drain).toBe('drained')
  expect(a.store.own.size).toBe(0)
  expect(a.rests.at(-1)).toBe(false)
  for (const message of messages) {
    const owner = [b, c].filter((side) => side.store.own.has(message.id))
    expect(owner).toHaveLength(1)
    const own = owner[0]?.store.get(message.id)
    expect(own?.term).toBe(2)
    expect(own?.owner).toBe(owner[0]?.node.id as NodeId)
    // It is still a copy here, and the new owner knows.
    expect(a.store.copy(message.id)?.owner).toBe(own?.owner as NodeId)
    expect(own?.holders.get(a.node.id)).toBe('kept')
    expect(owner[0]?.taken).toContain(own as Message)
  }
  expect(a.node.count('queue.transferred')).toBe(3)
})

test('what is done is not tried again, and what waits keeps attempts, reply and remaining time', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  b.node.skewMs = 3_600_000
  const message = a.accept(4, b)
  // The marks have not reached the copy.
  const [done, later, doubt, gone] = message.recipients
  if (done === undefined || later === undefined || doubt === undefined || gone === undefined) return
  done.state = 'done'
  const nextTryMs = a.node.wallMs() + 60_000
  Object.assign(later, {
    state: 'deferred',
    attempts: 3,
    nextTryMs,
    lastReply: '451 no',
    warned: true,
  })
  Object.assign(doubt, { state: 'inDoubt', attempts: 1, doubtful: true, nextTryMs })
  gone.state = 'dropped'
  all.drain(a)
  await all.run(2_000)
  const own = b.store.get(message.id)
  expect(own?.recipients.map(({ state }) => state)).toEqual([
    'done',
    'deferred',
    'deferred',
    'failed',
  ])
  expect(own?.recipients.map(({ doubtful }) => doubtful)).toEqual([false, false, true, false])
  expect(own?.recipients[2]?.nextTryMs).toBe(own?.recipients[1]?.nextTryMs as number)
  const told = own?.recipients[1]
  expect(told).toMatchObject({ attempts: 3, lastReply: '451 no', warned: true })
  expect((told?.nextTryMs ?? 0) - b.node.wallMs()).toBeLessThan(60_000)
  expect((told?.nextTryMs ?? 0) - b.node.wallMs()).toBeGreaterThan(57_000)
})

test('after a lost answer this node is silent on the message until it knows who has it', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const message = a.accept(1, b)
  let isCut = false
  all.mesh.fate = (from, _to, { type }) => {
    if (from !== b.node.id || type !== MESSAGE.answer || isCut) return { delayMs: 0 }
    isCut = true
    all.mesh.unlink(a.node, b.node)
    return null
  }
  all.drain(a)
  await all.run(30_000, message)
  expect(isCut).toBe(true)
  expect(b.acts(message)).toBe(true)
  expect(a.store.own.has(message.id)).toBe(true)
  expect(a.acts(message)).toBe(false)
  expect(a.transfer.why(message)).toContain('has not answered')
  // Also when somebody thinks better of the drain.
  all.set(a.node.id, { drain: 'accepting' })
  await all.run(10_000, message)
  expect(a.acts(message)).toBe(false)
  all.mesh.join()
  await all.run(3_000, message)
  expect(a.store.own.has(message.id)).toBe(false)
  expect(b.acts(message)).toBe(true)
})

test('an answer that is lost after the message was delivered is an answer all the same', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const message = a.accept(1, b)
  all.loseFirst(b, a, MESSAGE.answer)
  all.drain(a)
  await all.run(1_000, message)
  b.store.finish(b.store.get(message.id) as Message)
  all.mesh.join()
  await all.run(3_000, message)
  expect(a.store.own.has(message.id)).toBe(false)
  expect(all.stateOf(a)?.drain).toBe('drained')
})

test('a question that is lost is no loss: the message goes with the next one', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const message = a.accept(1, b)
  all.loseFirst(a, b, MESSAGE.call)
  all.drain(a)
  await all.run(1_000, message)
  expect(a.acts(message)).toBe(false)
  all.mesh.join()
  await all.run(3_000, message)
  expect(b.acts(message)).toBe(true)
  expect(all.stateOf(a)?.drain).toBe('drained')
})

test('after a drain that was called off nothing more is taken, also not what was asked for before', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const message = a.accept(1, b)
  all.loseFirst(a, b, MESSAGE.call)
  all.drain(a)
  await all.run(1_000, message)
  all.set(a.node.id, { drain: 'accepting' })
  await all.run(5_000, message)
  expect(a.acts(message)).toBe(false)
  all.mesh.join()
  await all.run(3_000, message)
  expect(a.acts(message)).toBe(true)
  expect(a.freed).toContain(message)
})

test('what nobody takes stays, is delivered here, and is named when the time is over', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const message = a.accept(1, b)
  b.refusal = 'mx2 has no room.'
  all.drain(a)
  await all.run(89_000, message)
  expect(all.stateOf(a)?.drain).toBe('draining')
  await all.run(3_000, message)
  expect(all.stateOf(a)?.drain).toBe('drained')
  expect(a.transfer.remains()).toEqual({
    queue: 1,
    held: 0,
    copies: 0,
    owed: 0,
    why: 'mx2 has no room.',
  })
  expect(a.acts(message)).toBe(true)
  expect(a.rests.at(-1)).toBe(false)
  expect(a.freed).toContain(message)
})

test('a message without a copy gets one first; one that a holder has lost does too', async () => {
  const { all, sides } = world(3)
  const [a, b, c] = sides as [Side, Side, Side]
  const alone = a.accept(1)
  const forgotten = a.accept(1, b)
  b.store.kept.clear()
  a.gives = c
  all.drain(a)
  await all.run(8_000, alone, forgotten)
  expect([...c.store.own.keys()]).toEqual([alone.id, forgotten.id])
  expect(all.stateOf(a)?.drain).toBe('drained')
})

test('what is being tried, held or perhaps not its own waits', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const tried = a.accept(1, b)
  const held = a.accept(2, b)
  const barred = a.accept(1, b)
  const [first] = tried.recipients
  if (first !== undefined) first.state = 'trying'
  const [second] = held.recipients
  if (second !== undefined) second.state = 'held'
  a.barred.add(barred)
  all.drain(a)
  await all.run(2_000)
  expect(b.store.own.size).toBe(0)
  if (first !== undefined) first.state = 'deferred'
  held.heldMoved = true
  a.barred.clear()
  await all.run(2_000)
  expect(b.store.own.size).toBe(3)
})

test('with nobody there to take it a drain does not wait', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const message = a.accept(1, b)
  all.mesh.unlink(a.node, b.node)
  all.drain(a)
  await all.run(1_000, message)
  expect(all.stateOf(a)?.drain).toBe('drained')
  expect(a.acts(message)).toBe(true)
})

test('a node that drains too is not asked; of two that drain each keeps its own', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const [one, two] = [a.accept(1, b), b.accept(1, a)]
  all.drain(a)
  all.drain(b)
  await all.run(95_000, one, two)
  expect(a.acts(one)).toBe(true)
  expect(b.acts(two)).toBe(true)
})

test('undrain at any point: nothing more moves, attempts begin again', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  a.busy = 1
  all.drain(a)
  await all.run(1_000)
  all.set(a.node.id, { drain: 'accepting' })
  expect(a.rests.at(-1)).toBe(false)
  const message = a.accept(1, b)
  await all.run(2_000, message)
  expect(a.acts(message)).toBe(true)
})

test('the node is not drained while an attempt or a session runs, until its time is over', async () => {
  const { all, sides } = world(2)
  const [a] = sides as [Side]
  a.busy = 1
  all.drain(a)
  await all.run(80_000)
  expect(all.stateOf(a)?.drain).toBe('draining')
  a.busy = 0
  await all.run(1_000)
  expect(all.stateOf(a)?.drain).toBe('drained')
})

test('a question from before the link broke takes nothing when it comes late', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const message = a.accept(1, b)
  b.refusal = 'not now'
  const bodies: Uint8Array[] = []
  all.mesh.fate = (from, _to, { type, body }) => {
    if (from === a.node.id && type === MESSAGE.call) bodies.push(body)
    return { delayMs: 0 }
  }
  all.drain(a)
  await all.run(1_000, message)
  all.set(a.node.id, { drain: 'accepting' })
  await all.run(1_000, message)
  expect(a.acts(message)).toBe(true)
  b.refusal = null
  const link = b.node.links.open.get(a.node.id)
  for (const body of bodies)
    if (link !== undefined) b.node.links.deliver(link, { type: MESSAGE.call, body })
  await all.run(1_000, message)
  expect(a.acts(message)).toBe(true)
})

test('a target that died with the answer is given up when its mail may be adopted, and that is counted', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const message = a.accept(1, b)
  all.mesh.fate = (from, _to, { type }) => {
    if (from === b.node.id && type === MESSAGE.answer) all.mesh.unlink(a.node, b.node)
    return { delayMs: 0 }
  }
  all.drain(a)
  await all.run(100_000, message)
  expect(a.acts(message)).toBe(false)
  a.lost.add(b.node.id)
  await all.run(2_000)
  const own = a.store.get(message.id)
  expect(own?.term).toBe(3)
  expect(own?.recipients[0]?.doubtful).toBe(true)
  expect(a.acts(message)).toBe(true)
  expect(a.taken).toEqual([own as Message])
})

test('leave waits for the queue, for held mail, for what is owed, and until no copy is the last', async () => {
  const { all, sides } = world(3)
  const [a, b, c] = sides as [Side, Side, Side]
  const own = a.accept(1, b)
  const others = c.accept(1, a)
  const done = b.accept(1)
  a.store.debts.add(done)
  a.held = 2
  all.set(a.node.id, { drain: 'leaving' })
  await all.run(100_000, own, others)
  expect(all.stateOf(a)).toEqual({ drain: 'leaving', standing: 'member' })
  expect(a.transfer.remains()).toMatchObject({ queue: 0, held: 2, copies: 2, owed: 1 })
  for (const step of [
    () => {
      a.held = 0
    },
    // Its owner has made another copy.
    () => b.store.keepOf(others),
    // It is delivered, and this node has not heard of it yet.
    () => b.store.finish(b.store.get(own.id) as Message),
  ]) {
    step()
    await all.run(3_000)
    expect(all.stateOf(a)?.standing).toBe('member')
  }
  expect(a.transfer.remains()).toMatchObject({ queue: 0, held: 0, copies: 0, owed: 1 })
  a.store.debts.clear()
  await all.run(1_000)
  expect(all.stateOf(a)?.standing).toBe('left')
  // What it may have left behind is for the others.
  expect(a.rests.at(-1)).toBe(true)
})

test('a copy on a node that drains too, or that is away, is no second one', async () => {
  const { all, sides } = world(3)
  const [a, b, c] = sides as [Side, Side, Side]
  const others = c.accept(1, a, b)
  all.drain(b)
  await all.run(1_000)
  all.set(a.node.id, { drain: 'leaving' })
  await all.run(5_000, others)
  expect(a.transfer.remains().copies).toBe(1)
  all.set(b.node.id, { drain: 'accepting' })
  await all.run(3_000, others)
  expect(all.stateOf(a)?.standing).toBe('left')
})

test('of two nodes one leaves when the other has all, copies or not', async () => {
  const { all, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  const [own, other] = [a.accept(1, b), b.accept(1, a)]
  all.set(a.node.id, { drain: 'leaving' })
  await all.run(2_000, own, other)
  expect(all.stateOf(a)?.standing).toBe('left')
  expect(b.store.own.size).toBe(2)
})

test('10,000 queued mails are handed over within 60 s, none lost, none twice', async () => {
  const { all, sides } = world(3)
  const [a, b, c] = sides as [Side, Side, Side]
  for (let at = 0; at < 10_000; at++) a.accept(1, at % 2 === 0 ? b : c)
  const startMs = all.mesh.clock.nowMs
  all.drain(a)
  while (all.stateOf(a)?.drain !== 'drained') await all.mesh.runAsync(100)
  expect(all.mesh.clock.nowMs - startMs).toBeLessThan(60_000)
  expect([a, b, c].map(({ store }) => store.own.size)).toEqual([0, 5_000, 5_000])
})

test('what a node asks is read as it was written, and anything else is not', () => {
  const { sides } = world(2)
  const [a] = sides as [Side]
  const message = a.accept(3)
  const [, second] = message.recipients
  if (second !== undefined)
    Object.assign(second, { state: 'deferred', attempts: 2, lastReply: '4' })
  const ask = { epoch: 3, ask: 7, take: true, rows: [rowOf(message, 2, 0)] }
  const written = JSON.parse(JSON.stringify(encodeAsk(ask))) as Record<string, unknown>
  expect(readAsk(written)).toEqual(ask)
  expect([...marksOf(ask.rows[0] as (typeof ask.rows)[0], 5)].map(({ kind }) => kind)).toEqual([
    'defer',
  ])
  for (const wrong of [
    null,
    [],
    {},
    { ...written, epoch: -1 },
    { ...written, take: 1 },
    { ...written, rows: [{ id: 'x', term: 2, replies: [], stands: [] }] },
    { ...written, rows: [{ id: message.id, term: 0, replies: [], stands: [] }] },
    { ...written, rows: [{ id: message.id, term: 2, replies: [], stands: [[0, 9, 0, 0, -1, 0]] }] },
    { ...written, rows: [{ id: message.id, term: 2, replies: [1], stands: [] }] },
    {
      ...written,
      rows: [{ id: message.id, term: 2, replies: [], stands: [[0, 1, 0, 1e15, -1, 0]] }],
    },
  ]) {
    expect(readAsk(wrong)).toBeNull()
  }
})
