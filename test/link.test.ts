/** Who gets a link, who gets none, and which one of two stays. */
import { describe, expect, test } from 'bun:test'
import type { NodeId } from '../src/base/ids.ts'
import { type Link, MESSAGE } from '../src/cluster/contract.ts'
import { newKeys } from '../src/cluster/keys.ts'
import type { LinkTable } from '../src/cluster/link.ts'
import { Cast, PORT } from './cast.ts'
import { settled } from './pipes.ts'

const HELLO = new TextEncoder().encode('hello')

async function pair(seed = 1) {
  const cast = new Cast(seed)
  const [a, b] = [cast.add('aa'), cast.add('bb')]
  const [tableA, tableB] = [await cast.open(a, 'a'), await cast.open(b, 'b')]
  await cast.pass(200)
  return { cast, a, b, tableA, tableB }
}

/** What happens to the links of a table, in words. */
function watch(table: LinkTable): string[] {
  const seen: string[] = []
  table.onOpen((link) => seen.push(`open ${link.peer.slice(0, 2)}`))
  table.onClose((link, why) => seen.push(`close ${link.peer.slice(0, 2)}: ${why}`))
  return seen
}

function passes(from: LinkTable, to: NodeId): boolean {
  return from.get(to)?.send(MESSAGE.beat, HELLO) ?? false
}

describe('a link', () => {
  test('two members have one, dialled by the smaller id, and it carries messages', async () => {
    const { a, b, cast, tableA, tableB } = await pair()
    const [there, here] = [tableA.get(b.node), tableB.get(a.node)]
    expect([there?.outgoing, here?.outgoing]).toEqual([true, false])
    expect([there?.instance, here?.instance]).toEqual([b.instance, a.instance])
    const got: string[] = []
    tableB.onMessage(MESSAGE.pull, (link, body) => got.push(`${link.peer} ${body.length}`))
    expect(there?.send(MESSAGE.pull, HELLO)).toBe(true)
    // Nobody listens for it: it is as if it had not come.
    expect(there?.send(62, HELLO)).toBe(true)
    expect(got).toEqual([`${a.node} 5`])
    expect([tableA.trouble(b.node), tableB.trouble(a.node)]).toEqual([null, null])
    await cast.pass(120_000)
    expect([tableA.get(b.node), tableB.get(a.node)]).toEqual([there ?? null, here ?? null])
  })

  test('its round trip is measured at once and again, and what is ours is not handed on', async () => {
    const { a, b, cast, tableA, tableB } = await pair()
    const handed: number[] = []
    tableA.onMessage(MESSAGE.probed, (_, body) => handed.push(body.length))
    expect(tableA.get(b.node)?.roundTripMs).toBe(0)
    const sent = () => cast.pipes.seen.filter(({ from }) => from === 'a').length
    const before = sent()
    await cast.pass(30_000)
    expect(sent() - before).toBeGreaterThan(4)
    expect(sent() - before).toBeLessThan(20)
    expect(handed).toEqual([])
    // A question of somebody else on the same link is answered, and is his.
    tableA.get(b.node)?.send(MESSAGE.probe, new Uint8Array(8))
    tableA.get(b.node)?.send(MESSAGE.probe, new Uint8Array(65))
    expect(handed).toEqual([8])
    expect(tableB.get(a.node)?.heardMono).toBe(cast.clock.monoMs())
  })

  test('a link on which nothing comes for 15 s closes, and is dialled again for ever', async () => {
    const { a, b, cast, tableA, tableB } = await pair()
    const seen = watch(tableA)
    cast.pipes.silence('b')
    await cast.pass(14_000)
    expect(tableA.get(b.node)).not.toBeNull()
    await cast.pass(7_000)
    expect(seen).toEqual(['close bb: nothing came for 15 s'])
    await cast.pass(300_000)
    expect(tableA.trouble(b.node)).toContain('nothing came for 15 s')
    expect(tableB.get(a.node)).toBeNull()
  })

  test('an error of a listener closes the link and nothing else', async () => {
    const { a, b, cast, tableA, tableB } = await pair()
    tableB.onMessage(MESSAGE.pull, () => {
      throw new Error('a bug of ours')
    })
    tableA.get(b.node)?.send(MESSAGE.pull, HELLO)
    expect(tableB.get(a.node)).toBeNull()
    expect(cast.lines.join('')).toContain('a bug of ours')
    await cast.pass(5_000)
    expect(passes(tableA, b.node)).toBe(true)
  })

  test('close and stop are for good only here', async () => {
    const { a, b, cast, tableA, tableB } = await pair()
    tableA.get(b.node)?.close('for a test')
    expect([tableA.get(b.node), tableB.get(a.node)]).toEqual([null, null])
    await cast.pass(3_000)
    expect(passes(tableB, a.node)).toBe(true)
    tableB.close()
    await cast.pass(10_000)
    expect([tableA.get(b.node), tableB.get(a.node)]).toEqual([null, null])
    expect(tableA.trouble(b.node)).toContain('b:7900')
  })
})

describe('dialling', () => {
  test('the larger id dials too, when the smaller one does not get through', async () => {
    const { cast, a, b } = alone()
    // a knows no way to b.
    const tableA = await cast.open(a, 'a', {
      roster: cast.roster(a, () =>
        cast.members.map((member) => (member.node === b.node ? { ...member, peer: [] } : member)),
      ),
    })
    const tableB = await cast.open(b, 'b')
    await cast.pass(2_900)
    expect(tableB.get(a.node)).toBeNull()
    expect(tableA.trouble(b.node)).toBe('mx-b has not said where it listens for peers.')
    await cast.pass(200)
    expect(tableB.get(a.node)?.outgoing).toBe(true)
    expect(passes(tableA, b.node)).toBe(true)
  })

  test('all addresses are tried in turn, and the pauses grow to a minute', async () => {
    const { cast, a, b } = alone()
    cast.change(b.node, {
      peer: [
        { host: 'nowhere', port: 1 },
        { host: 'b', port: PORT },
      ],
    })
    const dials: number[] = []
    const network = cast.pipes.at('a')
    const table = await cast.open(a, 'a', {
      network: {
        ...network,
        dial: (to, open, timeoutMs) => {
          if (to.host === 'nowhere') dials.push(cast.clock.monoMs())
          return network.dial(to, open, timeoutMs)
        },
      },
    })
    await cast.pass(600_000)
    expect(table.trouble(b.node)).toBe(
      'nowhere:1 cannot be reached over TCP: connection refused. ' +
        'b:7900 cannot be reached over TCP: connection refused.',
    )
    const pauses = dials.slice(1).map((mono, place) => mono - (dials[place] ?? 0))
    expect(Math.min(...pauses)).toBeGreaterThanOrEqual(1_000)
    expect(Math.max(...pauses)).toBeLessThanOrEqual(60_100)
    expect(Math.max(...pauses)).toBeGreaterThan(20_000)
    expect(dials.length).toBeLessThan(60)
    expect(cast.observer.count('links_opened_total')).toBe(0)
    // It comes up: a sign of life on another way makes us dial now.
    await cast.open(b, 'b')
    const tries = dials.length
    table.wake(b.node)
    await cast.pass(100)
    expect(dials.length).toBe(tries + 1)
    expect(passes(table, b.node)).toBe(true)
    // Once a second is enough.
    table.wake(b.node)
    await cast.pass(100)
    expect(dials.length).toBe(tries + 1)
  })

  test('a sign of life also ends a dial that waits for its connection, and never two at once', async () => {
    const { cast, a, b } = alone()
    const lost: (() => Promise<void>)[] = []
    const network = cast.pipes.at('a')
    let isCut = true
    const table = await cast.open(a, 'a', {
      network: {
        ...network,
        dial: (to, open, timeoutMs) => {
          const dial = () => network.dial(to, open, timeoutMs)
          if (isCut) return new Promise(() => lost.push(dial))
          return dial()
        },
      },
    })
    const other = await cast.open(b, 'b', {
      roster: cast.roster(b, () => cast.members.map((member) => ({ ...member, peer: [] }))),
    })
    await cast.pass(3_000)
    expect([lost.length, table.get(b.node)]).toEqual([1, null])
    isCut = false
    table.wake(b.node)
    await cast.pass(300)
    expect(passes(table, b.node)).toBe(true)
    // What connects after all is hung up, and is no second machine.
    const written = cast.pipes.seen.length
    for (const dial of lost) await dial()
    await cast.pass(10_000)
    expect(cast.pipes.seen.slice(written).every(({ bytes }) => bytes.length < 100)).toBe(true)
    expect([table.duplicates(), other.duplicates()]).toEqual([[], []])
    expect(cast.observer.count('links_opened_total')).toBe(2)
  })

  test('a sign of life less than a second after a dial is followed when the second is over', async () => {
    const { cast, a, b } = alone()
    const table = await cast.open(a, 'a')
    await cast.pass(100)
    await cast.open(b, 'b', {
      roster: cast.roster(b, () => cast.members.map((member) => ({ ...member, peer: [] }))),
    })
    table.wake(b.node)
    await cast.pass(700)
    expect(table.get(b.node)).toBeNull()
    await cast.pass(300)
    expect(passes(table, b.node)).toBe(true)
  })

  test('a changed address is dialled at once (K13)', async () => {
    const { cast, a, b } = alone()
    cast.change(b.node, { peer: [{ host: 'nowhere', port: 1 }] })
    const table = await cast.open(a, 'a')
    await cast.open(b, 'b')
    await cast.pass(2_000)
    expect(table.get(b.node)).toBeNull()
    cast.change(b.node, { peer: [{ host: 'b', port: PORT }] })
    await cast.pass(100)
    expect(passes(table, b.node)).toBe(true)
  })

  test('somebody else at the address: the words say so', async () => {
    const { cast, a, b } = alone()
    const table = await cast.open(a, 'a')
    const other = { ...b, keys: newKeys(cast.random) }
    const wrong = await cast.open(other, 'b', { roster: cast.roster(other, () => []) })
    await cast.pass(100)
    expect(table.trouble(b.node)).toContain(
      'b:7900 took the connection and hung up: it has another',
    )
    wrong.close()
    await cast.open(b, 'b', { clusterId: 'another cluster' })
    await cast.pass(60_000)
    expect(table.trouble(b.node)).toContain('belongs to another cluster')
  })

  test('versions that cannot speak with each other: the words name both (K18)', async () => {
    const { cast, a, b } = alone()
    const table = await cast.open(a, 'a')
    await cast.open(b, 'b', { protocol: { min: 3, max: 4 } })
    await cast.pass(100)
    expect(table.trouble(b.node)).toBe(
      'mx-b (0.1.0) speaks protocol 3 to 4, this node (0.1.0) 1 to 2: upgrade the older one.',
    )
  })

  test('both dial at the same moment: one link stays, the same one on both sides', async () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const { cast, a, b } = alone(seed)
      const [tableA, tableB] = [await cast.open(a, 'a'), await cast.open(b, 'b')]
      for (let round = 0; round < 5; round += 1) {
        for (const table of [tableA, tableB]) {
          const link = table.all()[0]
          if (cast.random.below(2) === 0) link?.close('chaos')
        }
        await cast.pass(100 * cast.random.below(60))
      }
      await cast.pass(12_000)
      expect([tableA.all().length, tableB.all().length]).toEqual([1, 1])
      let got = 0
      tableB.onMessage(MESSAGE.pull, () => {
        got += 1
      })
      tableA.get(b.node)?.send(MESSAGE.pull, HELLO)
      expect(got).toBe(1)
    }
  })

  test('a link of the larger id gives way to one of the smaller one, not the other way', async () => {
    const { cast, a, b } = alone()
    // At first a does not know where b is: b's link stands.
    let knows = false
    const roster = cast.roster(a, () =>
      cast.members.map((member) =>
        member.node === b.node && !knows ? { ...member, peer: [] } : member,
      ),
    )
    const [tableA, tableB] = [await cast.open(a, 'a', { roster }), await cast.open(b, 'b')]
    await cast.pass(4_000)
    expect(tableA.get(b.node)?.outgoing).toBe(false)
    const seen = watch(tableB)
    // Now a dials although it has a link: that is what a race looks like.
    knows = true
    const link = tableA.get(b.node)
    link?.close('to dial')
    await cast.pass(2_000)
    expect(tableA.get(b.node)?.outgoing).toBe(true)
    expect(tableB.get(a.node)?.outgoing).toBe(false)
    expect(seen.at(-1)).toBe('open aa')
  })
})

/** Two members, no table yet. */
function alone(seed = 1) {
  const cast = new Cast(seed)
  const [a, b] = [cast.add('aa'), cast.add('bb')]
  return { cast, a, b }
}

describe('who is refused', () => {
  test('a node that is not in the roster, although it knows key and cluster (K03)', async () => {
    const { cast, tableA, a } = await pair()
    const rogue = {
      ...cast.again(a),
      node: 'cc'.padEnd(16, '0') as NodeId,
      keys: newKeys(cast.random),
    }
    const table = await cast.open(rogue, 'c')
    await cast.pass(10_000)
    expect(table.all()).toEqual([])
    expect(tableA.all().length).toBe(1)
    expect(table.trouble(a.node)).toBe(
      'mx-a does not know this node, and what this node has of its admission does not prove it. ' +
        'If that lasts, join it again, with a new token and --new-identity.',
    )
  })

  test.each(['evicted', 'left'] as const)(
    'a node that is %s loses its link at once and gets none again',
    async (standing) => {
      const { cast, a, b } = alone()
      // b is the last to hear of it.
      const old = [...cast.members]
      const [tableA, tableB] = [
        await cast.open(a, 'a'),
        await cast.open(b, 'b', { roster: cast.roster(b, () => old) }),
      ]
      await cast.pass(200)
      const seen = watch(tableA)
      const told: string[] = []
      tableB.onRefused((node, refusal) => told.push(`${node.slice(0, 2)} ${refusal}`))
      const got: number[] = []
      tableA.onMessage(MESSAGE.push, (_, body) => got.push(body.length))
      const link = tableB.get(a.node)
      cast.change(b.node, { standing })
      expect(tableA.get(b.node)).toBeNull()
      expect(seen).toEqual([`close bb: ${standing} by the roster`])
      expect(told).toEqual([`aa ${standing}`])
      expect(link?.send(MESSAGE.push, HELLO)).toBe(false)
      await cast.pass(300_000)
      expect(seen.length).toBe(1)
      expect(got).toEqual([])
      expect(tableB.all()).toEqual([])
      expect(tableB.trouble(a.node)).toContain('mx-a refuses this node')
      expect(tableA.trouble(b.node)).toContain(standing === 'left' ? 'has left' : 'was removed')
    },
  )

  test('what an evicted node had on the way is not read any more (K05)', async () => {
    const { cast, b, a, tableA, tableB } = await pair()
    const got: number[] = []
    tableA.onMessage(MESSAGE.push, (_, body) => got.push(body.length))
    cast.pipes.freeze('a')
    tableB.get(a.node)?.send(MESSAGE.push, HELLO)
    cast.change(b.node, { standing: 'evicted' })
    cast.pipes.thaw('a')
    expect(got).toEqual([])
  })

  test('a node that is removed while its new link waits for the proof', async () => {
    const { cast, b, tableA } = await pair()
    cast.pipes.silence('b')
    const table = await cast.open(cast.again(b), 'e')
    await cast.pass(4_000)
    const seen = watch(tableA)
    cast.change(b.node, { standing: 'evicted' })
    await cast.pass(60_000)
    expect(seen).toEqual(['close bb: evicted by the roster'])
    expect(table.all()).toEqual([])
  })

  test('a node that is removed while it says that we are welcome', async () => {
    const { cast, a, b } = alone()
    const before = [...cast.members]
    const tableA = await cast.open(a, 'a')
    await cast.open(b, 'b', { roster: cast.roster(b, () => before) })
    let pieces = 0
    cast.pipes.change = ({ from, bytes }) => {
      if (from === 'b') pieces += 1
      if (from === 'b' && pieces === 2) cast.change(b.node, { standing: 'evicted' })
      return bytes
    }
    const seen = watch(tableA)
    await cast.pass(10_000)
    expect(pieces).toBeGreaterThanOrEqual(2)
    expect(seen).toEqual([])
  })

  test('a node whose key changed in the roster is another node', async () => {
    const { cast, b, tableA } = await pair()
    const seen = watch(tableA)
    cast.change(b.node, { exchange: newKeys(cast.random).exchange.public })
    expect(seen).toEqual(['close bb: unknown by the roster'])
    await cast.pass(60_000)
    expect(tableA.get(b.node)).toBeNull()
  })
})

describe('the same node twice', () => {
  test('a restart replaces at once the link of a run that ended', async () => {
    const { cast, b, tableA, tableB } = await pair()
    tableB.close()
    cast.pipes.kill('b')
    const next = cast.again(b)
    await cast.open(next, 'b')
    await cast.pass(4_000)
    expect(tableA.get(b.node)?.instance).toBe(next.instance)
    expect(tableA.duplicates()).toEqual([])
  })

  test('a restart after a loss of power is let in when the old run does not answer', async () => {
    const { cast, b, tableA } = await pair()
    cast.pipes.silence('b')
    // It comes up elsewhere, and dials itself.
    const next = cast.again(b)
    const table = await cast.open(next, 'e')
    const startMono = cast.clock.monoMs()
    while (tableA.get(b.node)?.instance !== next.instance) await cast.pass(100)
    expect(cast.clock.monoMs() - startMono).toBeLessThan(10_000)
    expect(tableA.duplicates()).toEqual([])
    expect(table.all().length).toBe(1)
  })

  test('a copy that runs beside the original is refused and reported with both addresses (K13)', async () => {
    const { cast, a, b, tableA } = await pair()
    const original = tableA.get(b.node)
    const copy = cast.again(b)
    const told: string[] = []
    const table = await cast.open(copy, 'e')
    table.onRefused((_, refusal) => told.push(refusal))
    await cast.pass(10_000)
    expect(tableA.get(b.node)).toBe(original)
    expect(table.all()).toEqual([])
    expect(told[0]).toBe('twin')
    const [double, ...more] = tableA.duplicates()
    expect(more).toEqual([])
    expect(double?.node).toBe(b.node)
    expect([double?.kept.instance, double?.refused.instance]).toEqual([b.instance, copy.instance])
    expect([double?.kept.remote.host, double?.refused.remote.host]).toEqual(['b', 'e'])
    expect(cast.observer.count('node_doubled_total')).toBe(1)
    expect(table.trouble(a.node)).toContain('another machine runs with the same identity')
    // It is said once, and forgotten when the copy is gone.
    await cast.pass(120_000)
    expect(cast.observer.count('node_doubled_total')).toBe(1)
    table.close()
    await cast.pass(200_000)
    expect(tableA.duplicates()).toEqual([])
    expect(tableA.get(b.node)).toBe(original)
  })

  test('whoever comes first, the run that started first stays', async () => {
    const { cast, a, b } = alone()
    const tableA = await cast.open(a, 'a', {
      roster: cast.roster(a, () =>
        cast.members.map((member) => (member.node === b.node ? { ...member, peer: [] } : member)),
      ),
    })
    const copy = cast.again(b)
    const second = await cast.open(copy, 'e')
    await cast.pass(4_000)
    expect(tableA.get(b.node)?.instance).toBe(copy.instance)
    const told: string[] = []
    second.onRefused((_, refusal) => told.push(refusal))
    await cast.open(b, 'b')
    await cast.pass(3_200)
    expect(tableA.get(b.node)?.instance).toBe(b.instance)
    expect(told).toEqual(['twin'])
    await cast.pass(10_000)
    expect(tableA.get(b.node)?.instance).toBe(b.instance)
    expect(tableA.duplicates().map(({ kept }) => kept.instance)).toEqual([b.instance])
  })

  test('a copy of a running machine, with the same run, does not take over either (K07)', async () => {
    const { cast, b, tableA } = await pair()
    const original = tableA.get(b.node)
    // The original was dialled by a: a copy that dials is the larger one and stays outside.
    const table = await cast.open(b, 'e')
    const told: string[] = []
    table.onRefused((_, refusal) => told.push(refusal))
    await cast.pass(4_000)
    expect(tableA.get(b.node)).toBe(original)
    expect(table.all()).toEqual([])
    // Both sides may have dialled at the same moment: this alone is no copy.
    expect(new Set(told)).toEqual(new Set(['standing']))
    expect(tableA.duplicates()).toEqual([])
  })

  test('a repeated dial displaces no living link and gets no answer (K01)', async () => {
    const { cast, b, tableA, tableB } = await pair()
    const seen = watch(tableB)
    const link = tableA.get(b.node)
    link?.send(MESSAGE.beat, HELLO)
    const captured = cast.pipes.seen.filter(({ from }) => from === 'a').map(({ bytes }) => bytes)
    const said = cast.pipes.seen.filter(({ from }) => from === 'b').length
    const replay = cast.pipes.stranger('x', { host: 'b', port: PORT })
    await replay.opened
    for (const bytes of captured) replay.write(bytes)
    expect(replay.got().length).toBe(0)
    expect(cast.pipes.seen.filter(({ from }) => from === 'b').length).toBe(said)
    await settled()
    expect(seen).toEqual([])
    expect(passes(tableA, b.node)).toBe(true)
  })

  test('a repeated dial against a node that forgot it opens nothing', async () => {
    const { cast, a, b, tableA, tableB } = await pair()
    const captured = cast.pipes.seen.filter(({ from }) => from === 'a').map(({ bytes }) => bytes)
    tableA.close()
    cast.pipes.kill('b')
    tableB.close()
    const next = await cast.open(cast.again(b), 'b')
    const seen = watch(next)
    const replay = cast.pipes.stranger('x', { host: 'b', port: PORT })
    await replay.opened
    for (const bytes of captured) replay.write(bytes)
    await cast.pass(10_000)
    expect(seen).toEqual([])
    expect(next.get(a.node)).toBeNull()
  })
})

test('a mesh of five finds itself, and heals after everything broke', async () => {
  const cast = new Cast(5)
  const selves = ['11', '22', '33', '44', '55'].map((id) => cast.add(id))
  const tables: LinkTable[] = []
  for (const [place, self] of selves.entries()) {
    tables.push(await cast.open(self, String.fromCharCode(97 + place)))
  }
  await cast.pass(1_000)
  expect(tables.map((table) => table.all().length)).toEqual([4, 4, 4, 4, 4])
  const links: Link[] = tables.flatMap((table) => [...table.all()])
  for (const link of links) link.close('everything broke')
  await cast.pass(10_000)
  expect(tables.map((table) => table.all().length)).toEqual([4, 4, 4, 4, 4])
  expect(cast.observer.count('node_doubled_total')).toBe(0)
  expect(cast.observer.count('link_garbled_total')).toBe(0)
})
