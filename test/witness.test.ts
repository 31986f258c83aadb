/** XPOSTERN: a node that is silent as a peer says at its port for mail that it lives. */
import { describe, expect, test } from 'bun:test'
import { MessageIds, type NodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { Member, Network, PeerAddress, Standing, Stream } from '../src/cluster/contract.ts'
import { newKeys } from '../src/cluster/keys.ts'
import { UnreachableError } from '../src/cluster/network.ts'
import { Witness } from '../src/cluster/witness.ts'
import { EMPTY_SNAPSHOT } from '../src/config/snapshot.ts'
import { Session } from '../src/mail/accept/session.ts'
import { ManualClock } from './clock.ts'

const A = '00000000000000aa' as NodeId
const B = '00000000000000bb' as NodeId
const C = '00000000000000cc' as NodeId
const AT: PeerAddress = { host: '192.0.2.2', port: 25 }

/** Three members that share a roster; A asks, the SMTP server at AT is `serve`. */
function place() {
  const clock = new ManualClock()
  const random = new SeededRandom(1)
  const observer = new Observer(clock, () => {})
  const keys = new Map([A, B, C].map((node) => [node, newKeys(random)]))
  const standings = new Map<NodeId, Standing>()
  const state = { mayAnswer: true, isDelivering: true, epoch: 7 }
  const changed: (() => void)[] = []
  const memberOf = (node: NodeId): Member | null => {
    const own = keys.get(node)
    if (own === undefined) return null
    const standing = standings.get(node) ?? 'member'
    return { node, standing, exchange: own.exchange.public } as unknown as Member
  }
  /** What the server says to each line; null: nothing. The first answer is to no line. */
  let serve: (line: string | null) => string | null = () => null
  let isReachable = true
  const asked: string[] = []
  const network: Network = {
    listen: () => Promise.reject(new Error('none')),
    datagrams: () => Promise.reject(new Error('none')),
    dial: async (to, open) => {
      if (!isReachable) throw new UnreachableError('refused', { isRefused: true })
      const stream: Stream = {
        remote: to,
        write: (bytes) => {
          const line = Buffer.from(bytes).toString('latin1').trimEnd()
          asked.push(line)
          say(serve(line))
          return true
        },
        end: () => {},
        terminate: () => {},
      }
      const say = (text: string | null): void => {
        if (text === null) return
        queueMicrotask(() => handlers.received(new TextEncoder().encode(text)))
      }
      const handlers = open(stream)
      say(serve(null))
    },
  }
  const witnessOf = (node: NodeId): Witness => {
    const own = keys.get(node)
    if (own === undefined) throw new Error('no member')
    return new Witness(
      {
        self: { node, keys: own, instance: '1', epoch: state.epoch, version: '1' },
        roster: {
          clusterId: '00112233445566aa',
          get: memberOf,
          onChange: (listener) => changed.push(listener),
        },
        mayAnswer: () => state.mayAnswer,
        isDelivering: () => state.isDelivering,
      },
      { clock, random, observer, network },
    )
  }
  const smtp =
    (node: NodeId, before = (line: string) => line) =>
    (line: string | null): string | null => {
      if (line === null) return '220-mx ESMTP\r\n220 ready\r\n'
      if (line === 'QUIT') return '221 2.0.0 Bye\r\n'
      const said = server(node).answer(before(line).replace(/^XPOSTERN /, ''))
      return said === null ? '500 5.5.2 Unknown command\r\n' : `250 2.0.0 ${said}\r\n`
    }
  const servers = new Map<NodeId, Witness>()
  const server = (node: NodeId): Witness => {
    const known = servers.get(node) ?? witnessOf(node)
    servers.set(node, known)
    return known
  }
  const asker = witnessOf(A)
  return {
    clock,
    state,
    standings,
    changed,
    asked,
    server,
    smtp,
    set serve(act: typeof serve) {
      serve = act
    },
    set isReachable(is: boolean) {
      isReachable = is
    },
    /** Whether B says at AT that it still delivers. */
    ask: async (): Promise<boolean> => {
      const asking = asker.isDelivering(memberOf(B) as Member, [AT])
      for (let turn = 0; turn < 50; turn += 1) await Promise.resolve()
      clock.advance(21_000)
      return await asking
    },
    question: async (): Promise<string> => {
      serve = (line) => (line === null ? '220 ready\r\n' : null)
      void asker.isDelivering(memberOf(B) as Member, [AT])
      for (let turn = 0; turn < 50; turn += 1) await Promise.resolve()
      return (asked.at(-1) ?? '').replace(/^XPOSTERN /, '')
    },
  }
}

describe('the answer', () => {
  test('of the node itself, under the key of the two, that it still delivers', async () => {
    const it = place()
    it.serve = it.smtp(B)
    expect(await it.ask()).toBe(true)
  })

  test('that it does not deliver any more is silence', async () => {
    const it = place()
    it.serve = it.smtp(B)
    it.state.isDelivering = false
    expect(await it.ask()).toBe(false)
  })

  test('another node’s answer is silence', async () => {
    const it = place()
    it.serve = it.smtp(C)
    expect(await it.ask()).toBe(false)
  })

  test('an answer of before, to another question, is silence', async () => {
    const it = place()
    let first: string | null = null
    it.serve = it.smtp(B, (line) => {
      first ??= line
      return first
    })
    expect([await it.ask(), await it.ask()]).toEqual([true, false])
  })

  test('a changed answer is silence', async () => {
    for (const [from, to] of [
      [' 7 1 ', ' 8 1 '],
      [' 7 1 ', ' 7 2 '],
      ['00bb', '00cc'],
    ] as const) {
      const it = place()
      const whole = it.smtp(B)
      it.serve = (line) => whole(line)?.replace(from, to) ?? null
      expect(await it.ask()).toBe(false)
    }
  })

  test('nobody there, no SMTP, 421 and no answer at all are silence', async () => {
    const it = place()
    it.isReachable = false
    expect(await it.ask()).toBe(false)
    it.isReachable = true
    const servers: ((line: string | null) => string | null)[] = [
      () => 'HTTP/1.1 400 Bad Request\r\n\r\n',
      (line) => (line === null ? '421 4.3.2 Busy\r\n' : null),
      (line) => (line === null ? '220 ready\r\n' : '250 2.0.0 yes\r\n'),
      (line) => (line === null ? '220 ready\r\n' : `250-${'x'.repeat(9_000)}`),
      () => null,
    ]
    for (const serve of servers) {
      it.serve = serve
      expect(await it.ask()).toBe(false)
    }
  })

  test('none while it is joining or behind its own barrier, and none to who was removed', async () => {
    const it = place()
    it.serve = it.smtp(B)
    it.state.mayAnswer = false
    expect(await it.ask()).toBe(false)
    it.state.mayAnswer = true
    expect(await it.ask()).toBe(true)
    it.standings.set(A, 'evicted')
    for (const listener of it.changed) listener()
    expect(it.server(B).answer(await it.question())).toBeNull()
  })
})

describe('strangers', () => {
  test('learn nothing: not from words, ids or a question for somebody else', async () => {
    const it = place()
    const question = await it.question()
    const [id = '', nonce = '', mac = ''] = question.split(' ')
    const lines = [
      '',
      'hello',
      id,
      `${id} ${nonce}`,
      `${id} ${nonce} ${'0'.repeat(32)}`,
      `${'f'.repeat(16)} ${nonce} ${mac}`,
      `${C} ${nonce} ${mac}`,
      `${B} ${nonce} ${mac}`,
      `${id} ${nonce} ${mac} more`,
      `${id} ${nonce}00 ${mac}`,
      'x'.repeat(500),
    ]
    for (const line of lines) expect(it.server(B).answer(line)).toBeNull()
    expect(it.server(C).answer(question)).toBeNull()
    expect(it.server(B).answer(question)).not.toBeNull()
  })

  test('who does not know the id of a member cannot use up the answers of the others', async () => {
    const it = place()
    const question = await it.question()
    const [, nonce = '', mac = ''] = question.split(' ')
    for (let index = 0; index < 10_000; index += 1) {
      it.server(B).answer(`${'e'.repeat(16)} ${nonce} ${mac}`)
    }
    expect(it.server(B).answer(question)).not.toBeNull()
  })

  test('and who knows it costs no more than so many hashes a second', async () => {
    const it = place()
    const question = await it.question()
    let answered = 0
    for (let index = 0; index < 1_000; index += 1) {
      if (it.server(B).answer(question) !== null) answered += 1
    }
    expect(answered).toBe(50)
    it.clock.advance(1_000)
    expect(it.server(B).answer(question)).not.toBeNull()
  })
})

describe('at the door', () => {
  function say(line: string, witness?: (question: string) => string | null): string {
    const clock = new ManualClock()
    let out = ''
    const session = new Session(
      '192.0.2.9',
      {
        write: (text) => {
          out += text
        },
        end: (text) => {
          out += text
        },
        pause: () => {},
        resume: () => {},
        startTls: () => {},
      },
      {
        hostname: 'mx1',
        clock,
        observer: new Observer(clock, () => {}),
        ids: new MessageIds(A, 1, clock),
        receiver: {} as never,
        snapshot: () => EMPTY_SNAPSHOT,
        mayRelay: () => false,
        isExempt: () => false,
        begun: () => true,
        addressed: () => true,
        greylisted: () => 0,
        behaved: () => {},
        tlsOffered: false,
        closed: () => null,
        ...(witness === undefined ? {} : { witness }),
      },
    )
    session.open()
    session.receive(Buffer.from(`${line}\r\n`))
    return out.replace(/^220.*\r\n/, '')
  }

  test('a peer reads 250, everybody else what he would for any word that is none', () => {
    const unknown = say('XNONSENSE a b')
    expect(unknown).toStartWith('500 ')
    expect(say('XPOSTERN a b')).toBe(unknown)
    expect(say('XPOSTERN a b', () => null)).toBe(unknown)
    const seen: string[] = []
    const answer = (question: string): string => {
      seen.push(question)
      return 'node 7 1 mac'
    }
    expect(say('xpostern a b c', answer)).toBe('250 2.0.0 node 7 1 mac\r\n')
    expect(seen).toEqual(['a b c'])
  })
})
