/** The real nodes that the dialogues talk to, and the next hops behind them. */
import { pause, SystemClock } from '../../src/base/clock.ts'
import { freePort } from '../ports.ts'
import { Postern } from '../process/postern.ts'
import { commandLineOf, treeOf } from '../process/proc.ts'
import { type Arrival, Sink, type SinkManners } from '../process/sink.ts'
import type { Target } from './play.ts'

const clock = new SystemClock()

/** Settings of each node, beside the initial ones. */
const NODES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  plain: { 'deliver.timeout': '2' },
  repair: { 'mail.newlines': 'repair', 'limits.errors': '1000' },
  limits: {
    'limits.exempt': '',
    'limits.idle': '10',
    'limits.errors': '5',
    'limits.messages': '3',
    'limits.connections': '4',
    'limits.connectionRate': '60',
    'limits.recipientRate': '200',
    'mail.size': '65536',
    'mail.recipients': '100',
  },
  slow: { 'limits.exempt': '', 'smtp.greetingDelay': '1000', 'inspect.budget': '2' },
}

/** Names that dialogues give to a node for what it is set to. */
const ALIASES: Readonly<Record<string, string>> = { trusting: 'repair' }

const LONG = 'x'.repeat(600)
/** Domains behind the plain node whose next hop misbehaves, each with a sink of its own. */
const RUDE: Readonly<Record<string, SinkManners>> = {
  'seven.example': { keywords: ['PIPELINING', 'ENHANCEDSTATUSCODES'], keep: true },
  'latin.example': { recipient: () => `550 5.1.1 caf\xe9 \x07\x1b[31m ${LONG}` },
  'endless.example': { raw: { EHLO: '250-one\r\n250-two\r\n' } },
  'flood.example': { raw: { EHLO: '250-and another line without end\r\n'.repeat(300_000) } },
  'odd.example': { sender: () => '999 5.5.5 odd', raw: { RCPT: '299 2.9.9 odder\r\n' } },
  'huge.example': { banner: '220-'.padEnd(10_000_000, 'x') },
  'barelf.example': { banner: '220 sink.example ESMTP\n', raw: { EHLO: '250 sink.example\n' } },
  'mute.example': { banner: '' },
}

type WaitingRow = { recipients: { address: string; attempts: number; state?: string }[] }

export class Nodes {
  readonly sink: Sink
  readonly #rude: readonly (readonly [string, Sink])[]
  readonly #nodes: ReadonlyMap<string, Postern>
  readonly #seen = new Set<string>()

  private constructor(nodes: ReadonlyMap<string, Postern>) {
    this.#nodes = nodes
    this.#rude = Object.entries(RUDE).map(([name, manners]) => [name, new Sink(manners)] as const)
    this.sink = new Sink({
      keep: true,
      recipient: (address) => this.#recipient(address),
      dot: (arrival) => ({ reply: this.#dot(arrival) }),
    })
  }

  static async start(names: readonly string[] = Object.keys(NODES)): Promise<Nodes> {
    const started = await Promise.all(
      names.map(async (name) => [name, await Postern.start()] as const),
    )
    const nodes = new Nodes(new Map(started))
    await Promise.all(started.map(([name, node]) => nodes.#configure(name, node)))
    return nodes
  }

  async #configure(name: string, node: Postern): Promise<void> {
    await node.addDomain('example.com', this.sink.nextHop)
    for (const [key, value] of Object.entries(NODES[name] ?? {})) await node.set(key, value)
    if (name !== 'plain') return
    await node.addDomain('xn--bcher-kva.example', this.sink.nextHop)
    await node.addDomain('moody.example', this.sink.nextHop)
    await node.addDomain('list.example', this.sink.nextHop)
    await node.api('/api/v1/domains/list.example', {
      method: 'PUT',
      body: JSON.stringify({ recipients: ['known'] }),
    })
    const nobody = `smtp://127.0.0.1:${freePort()}`
    await node.addDomain('gone.example', nobody)
    await node.addDomain('failover.example', nobody, this.sink.nextHop)
    for (const [domain, sink] of this.#rude) await node.addDomain(domain, sink.nextHop)
  }

  /** `never-…` is refused for good, `later-…` once. */
  #recipient(address: string): string {
    if (address.startsWith('never-')) return '550 5.1.1 No such mailbox'
    if (!address.startsWith('later-') || this.#seen.has(address)) return '250 2.1.5 Ok'
    this.#seen.add(address)
    return '450 4.2.1 Later'
  }

  /** `drop-…` makes the connection end without a reply, once. */
  #dot(arrival: Arrival): string | null {
    const address = arrival.recipients.find((one) => one.address.startsWith('drop-'))?.address
    if (address === undefined || this.#seen.has(address)) return '250 2.0.0 Kept'
    this.#seen.add(address)
    return null
  }

  node(name: string): Postern {
    const node = this.#nodes.get(ALIASES[name] ?? name)
    if (node === undefined) throw new Error(`no node ${name}`)
    return node
  }

  /** All that reached any next hop and carries `token`. */
  with(token: string): Arrival[] {
    return [this.sink, ...this.#rude.map(([, sink]) => sink)].flatMap((sink) => sink.with(token))
  }

  target(name: string): Target {
    const node = this.node(name)
    const rows = async (token: string) =>
      (await listOf<WaitingRow>(node, '/api/v1/queue?limit=1000')).flatMap(({ recipients }) =>
        recipients.filter(({ address }) => address.includes(token)),
      )
    const waiting = async (token: string) =>
      (await rows(token))
        .filter(({ state }) => !['done', 'failed', 'dropped', 'held'].includes(state ?? 'queued'))
        .map(({ address, attempts, state }) => ({
          address,
          attempts,
          running: state === 'trying',
        }))
    const held = async (token: string) => {
      const all = await listOf<{
        id: string
        sender: string
        subject: string | null
        recipients: string[]
      }>(node, '/api/v1/quarantine?limit=1000')
      return all
        .filter(({ sender, subject, recipients }) =>
          `${sender} ${subject} ${recipients.join(' ')}`.includes(token),
        )
        .map(({ id }) => id)
    }
    return {
      port: node.smtpPort,
      codesOnly: false,
      held,
      waiting,
      arrivals: async (token, count, timeoutMs) => {
        const deadline = clock.monoMs() + timeoutMs
        for (;;) {
          const untried = (await waiting(token)).filter(
            ({ attempts, running }) => running || attempts === 0,
          )
          const got = this.with(token)
          if ((got.length >= count && untried.length === 0) || clock.monoMs() >= deadline)
            return got
          await pause(clock, 10)
        }
      },
      release: async (ids) => {
        for (const id of ids) {
          const { code, err } = await node.command('quarantine', 'release', id)
          if (code !== 0) throw new Error(`release: exit ${code} ${err}`)
        }
      },
      retry: async () => {
        const { code, err } = await node.command('queue', 'retry')
        if (code !== 0) throw new Error(`queue retry: exit ${code} ${err}`)
      },
      freezeInspectors: () => {
        const children = treeOf(node.pid).filter(
          (pid) => pid !== node.pid && / inspector\b/.test(commandLineOf(pid)),
        )
        if (children.length === 0) throw new Error('no inspector processes')
        for (const pid of children) process.kill(pid, 'SIGSTOP')
      },
    }
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.#nodes.values()].map((node) => node.dispose()))
    this.sink.stop()
    for (const [, sink] of this.#rude) sink.stop()
  }
}

/** A list of the API: a plain array, or a page with `rows`. */
export async function listOf<Row>(node: Postern, path: string): Promise<readonly Row[]> {
  const answer = await node.api<readonly Row[] | { readonly rows: readonly Row[] }>(path)
  return 'rows' in answer ? answer.rows : answer
}
