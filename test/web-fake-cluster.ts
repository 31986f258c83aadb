/** The cluster of an Admin without a node: invented peers, links, tokens, lists and conflicts. */
import type {
  Alarm,
  Alert,
  ApiTokenRow,
  Author,
  BanView,
  ClusterAdmin,
  ClusterView,
  ConflictRow,
  Invitation,
  ListEntry,
  NodeState,
  RemovedNode,
  TokenView,
} from '../src/admin/contract.ts'
import type { Clock } from '../src/base/clock.ts'
import { RefusalError } from '../src/base/errors.ts'
import type { NodeId } from '../src/base/ids.ts'
import { FakeSigning } from './web-fake-signing.ts'

type NodeView = ClusterView['nodes'][number]
type LinkView = ClusterView['links'][number]

/** This node; the others count up from it. */
export const NODE = '8f3a5c0d7e2b4916' as NodeId

export function nodeId(name: string): NodeId {
  return name === 'mx1'
    ? NODE
    : (Buffer.from(name).toString('hex').padEnd(16, '0').slice(0, 16) as NodeId)
}

/** What the tests turn: who is there, how they are, what the pages warn of. */
export class FakeCluster extends FakeSigning implements ClusterAdmin {
  readonly calls: string[] = []
  nodes: NodeView[]
  /** In place of links that all work. */
  links: LinkView[] | null = null
  events: ClusterView['events'][number][] = []
  alarmList: Alarm[] = []
  alertList: Alert[] = []
  conflictList: ConflictRow[] = []
  tokens: TokenView[] = []
  apiTokenList: (ApiTokenRow & { readonly secret: string })[] = []
  banned: readonly string[] = ['192.0.2.66']
  entries: ListEntry[] = []
  /** What `leave` and the like are refused with. */
  refuses: RefusalError | null = null
  /** Nodes in whose place an invitation is. */
  readonly replaced: string[] = []
  repairs = 0
  parked = 0
  /** Pages that listen. */
  readonly listeners = new Set<() => void>()
  #waiting: (() => void)[] = []

  constructor(clock: Clock, names: readonly string[]) {
    super(clock)
    this.nodes = names.map((name, i) => this.#node(name, i))
  }

  /** As the cluster would: the state, and those who listen are told. */
  turn(name: string, state: NodeState, more: Partial<NodeView> = {}): void {
    const sinceMs = this.clock.wallMs()
    this.nodes = this.nodes.map((node) =>
      node.name === name ? { ...node, state, sinceMs, ...more } : node,
    )
    this.events.unshift({ atMs: sinceMs, node: nodeId(name), name, what: state, detail: '' })
    this.tell()
  }

  tell(): void {
    for (const listener of this.listeners) listener()
  }

  cluster(): ClusterView {
    return {
      clusterId: '4f1d2c3b5a697887',
      nodes: this.nodes,
      links: this.links ?? this.#links(),
      repairs: this.repairs,
      parked: this.parked,
      digest: 'a1b2c3d4e5f60718',
      clockTrouble: null,
      events: this.events,
    }
  }

  watchCluster(listener: () => void): () => void {
    this.listeners.add(listener)
    this.#count()
    return () => {
      this.listeners.delete(listener)
      this.#count()
    }
  }

  /** Until so many pages listen. */
  async listening(pages: number): Promise<void> {
    while (this.listeners.size !== pages)
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  alarms(): readonly Alarm[] {
    return this.alarmList
  }

  alerts(): readonly Alert[] {
    return this.alertList
  }

  invite(
    author: Author,
    { minutes = 15, uses = 1, replaces = null }: Parameters<ClusterAdmin['invite']>[1],
  ): Invitation {
    this.act(author, `invite ${minutes} ${uses}`)
    if (replaces !== null) this.replaced.push(replaces)
    between('minutes', minutes, 1_440)
    between('uses', uses, 100)
    const expiresMs = this.clock.wallMs() + minutes * 60_000
    const id = `pj1_7GK2${this.tokens.length}`
    const token = `${id}M9QXV4T0C5R6N1HBAWE3`
    this.tokens.unshift({
      id,
      state: 'open',
      issuer: NODE,
      issuedMs: this.clock.wallMs(),
      by: author.name,
      expiresMs,
      usedBy: null,
    })
    const pin = 'sha256//r4k0Vd1mZJYx9uWq7Tn2cHfA6bLsE3pGoKi8yXQ5MzU='
    const command = `curl -fsSk --pinnedpubkey '${pin}' https://mx1.example.com:8443/join | sh -s -- ${token}`
    return { token, command, expiresMs }
  }

  invitations(): readonly TokenView[] {
    return this.tokens
  }

  revokeInvitation(author: Author, id: string): void {
    this.act(author, `revokeInvitation ${id}`)
    const token = this.tokens.find((one) => one.id === id)
    if (token === undefined) throw missing('id', `There is no token ${id}.`)
    this.tokens = this.tokens.map((one) => (one === token ? { ...one, state: 'revoked' } : one))
  }

  async join(author: Author, token: string): Promise<void> {
    this.act(author, `join ${token}`)
    this.#refuse()
  }

  async drain(author: Author, node: string | null): Promise<void> {
    this.act(author, `drain ${node ?? 'here'}`)
    this.#refuse()
    this.turn(this.#found(node).name, 'draining')
  }

  async undrain(author: Author, node: string | null): Promise<void> {
    this.act(author, `undrain ${node ?? 'here'}`)
    this.#refuse()
    this.turn(this.#found(node).name, 'alive')
  }

  async leave(author: Author, abandon: boolean): Promise<void> {
    this.act(author, `leave ${abandon}`)
    if (!abandon) this.#refuse()
  }

  async removeNode(author: Author, node: string): Promise<RemovedNode> {
    this.act(author, `removeNode ${node}`)
    const { id, name, report } = this.#found(node)
    this.#refuse()
    this.turn(name, 'evicted')
    const renew = ['The certificate of mx1.example.com and its key.', 'Passwords of next hops.']
    return { node: id, name, taken: report?.queue ?? 0, held: report?.held ?? 0, renew }
  }

  conflicts(): readonly ConflictRow[] {
    return this.conflictList
  }

  keep(author: Author, key: string, side: string): void {
    this.act(author, `keep ${key} ${side}`)
    const row = this.conflictList.find((one) => one.key === key)
    if (row === undefined) throw missing('key', `There is no conflict of ${key}.`)
    if (!row.sides.some(({ id }) => id === side)) {
      throw new RefusalError('conflict', 'side', 'The values are others by now.', 'Look again.')
    }
    this.conflictList = this.conflictList.filter((one) => one !== row)
  }

  apiTokens(): readonly ApiTokenRow[] {
    return this.apiTokenList.map(({ secret: _, ...row }) => row)
  }

  addApiToken(
    author: Author,
    { name, role, days = null }: Parameters<ClusterAdmin['addApiToken']>[1],
  ): { token: string; row: ApiTokenRow } {
    this.act(author, `addApiToken ${name} ${role} ${days}`)
    if (name === '') throw new RefusalError('invalid', 'name', 'The name is empty.', 'Give one.')
    if (role !== 'admin' && role !== 'viewer') {
      throw new RefusalError('invalid', 'role', `There is no role ${role}.`, 'Use admin or viewer.')
    }
    if (days !== null) between('days', days, 3_650)
    const addedMs = this.clock.wallMs()
    const row: ApiTokenRow = {
      id: `t${this.apiTokenList.length}`,
      name,
      role,
      by: author.name,
      addedMs,
      expiresMs: days === null ? null : addedMs + days * 86_400_000,
    }
    const secret = `pat1_${Buffer.from(`${row.id} ${name}`).toString('hex')}`
    this.apiTokenList.push({ ...row, secret })
    return { token: secret, row }
  }

  removeApiToken(author: Author, id: string): void {
    this.act(author, `removeApiToken ${id}`)
    const before = this.apiTokenList.length
    this.apiTokenList = this.apiTokenList.filter((one) => one.id !== id)
    if (this.apiTokenList.length === before) throw missing('id', `There is no token ${id}.`)
  }

  authenticateToken(token: string): Author | null {
    const found = this.apiTokenList.find(({ secret }) => secret === token)
    return found === undefined ? null : { name: found.name, role: found.role }
  }

  bans(): readonly BanView[] {
    const untilMs = this.clock.wallMs() + 3_600_000
    return this.banned.map((network) => ({ network, untilMs }))
  }

  liftBan(author: Author, network: string): void {
    this.act(author, `liftBan ${network}`)
    if (!this.banned.includes(network)) throw missing('network', `${network} is not refused.`)
    this.banned = this.banned.filter((one) => one !== network)
  }

  listEntries(list: 'allow' | 'block'): readonly ListEntry[] {
    return this.entries.filter((entry) => entry.list === list)
  }

  addListEntry(author: Author, input: Parameters<ClusterAdmin['addListEntry']>[1]): ListEntry {
    const { list, kind, value, note = '' } = input
    this.act(author, `addListEntry ${list} ${kind} ${value}`)
    if (list !== 'allow' && list !== 'block') {
      throw new RefusalError('invalid', 'list', `There is no list ${list}.`, 'Use allow or block.')
    }
    if (kind !== 'ip' && kind !== 'sender') {
      throw new RefusalError('invalid', 'kind', `${kind} cannot be listed.`, 'Use ip or sender.')
    }
    if (kind === 'ip' && !/^[0-9a-f.:]+(\/\d+)?$/.test(value)) {
      throw new RefusalError('invalid', 'value', `“${value}” is no address.`, 'Enter 192.0.2.1.')
    }
    const by = author.name
    const entry: ListEntry = { list, kind, value, note, by, addedMs: this.clock.wallMs() }
    this.entries.push(entry)
    return entry
  }

  removeListEntry(author: Author, list: string, kind: string, value: string): void {
    this.act(author, `removeListEntry ${list} ${kind} ${value}`)
    const before = this.entries.length
    this.entries = this.entries.filter(
      (one) => one.list !== list || one.kind !== kind || one.value !== value,
    )
    if (this.entries.length === before) throw missing('value', `${value} is not listed.`)
  }

  /** Notes who did what. @throws RefusalError forbidden */
  protected act(author: Author, call: string): void {
    if (author.role !== 'admin')
      throw new RefusalError('forbidden', null, 'A viewer may look.', 'Ask an admin.')
    this.calls.push(`${author.name}: ${call}`)
  }

  #count(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  #refuse(): void {
    if (this.refuses !== null) throw this.refuses
  }

  #found(node: string | null): NodeView {
    const found = this.nodes.find(({ id, name }) => id === (node ?? NODE) || name === node)
    if (found !== undefined) return found
    throw missing('node', `There is no node ${node}.`)
  }

  #node(name: string, i: number): NodeView {
    const nowMs = this.clock.wallMs()
    return {
      id: i === 0 ? NODE : nodeId(name),
      name,
      here: i === 0,
      state: 'alive',
      sinceMs: nowMs - 3_600_000,
      lagRows: 0,
      lagMs: 0,
      report: {
        ready: true,
        queue: 4 + i,
        held: 3 * i,
        diskFreeBytes: (71 - 7 * i) * 1024 ** 3,
        diskTotalBytes: 100 * 1024 ** 3,
        takesCopies: true,
        copies: 0,
        alone: 0,
        inDoubt: 0,
        troubles: [],
      },
      clockOffsetMs: i === 0 ? null : i === 1 ? 2 : -1,
      version: '0.1.0',
      peer: [`192.0.2.${11 + i}:7946`],
      smtp: `192.0.2.${11 + i}:25`,
      web: `https://192.0.2.${11 + i}:8443`,
      admittedMs: nowMs - 9 * 86_400_000,
    }
  }

  /** All work, but those of and to who is dead. */
  #links(): LinkView[] {
    return this.nodes.flatMap((from) =>
      this.nodes
        .filter((to) => to !== from)
        .map((to) => {
          if (from.state === 'dead') return unknown(from.id, to.id)
          const up = to.state !== 'dead'
          return {
            from: from.id,
            to: to.id,
            tcp: up,
            udp: up,
            tcpMs: up ? 0.42 : null,
            udpMs: up ? 0.31 : null,
            trouble: up ? null : 'refused',
          }
        }),
    )
  }
}

function unknown(from: NodeId, to: NodeId): LinkView {
  return { from, to, tcp: null, udp: null, tcpMs: null, udpMs: null, trouble: null }
}

function between(field: string, value: number, most: number): void {
  if (value >= 1 && value <= most) return
  throw new RefusalError('invalid', field, `${value} is out of range.`, `Enter 1 to ${most}.`)
}

function missing(field: string, message: string): RefusalError {
  return new RefusalError('notFound', field, message, 'See the list.')
}
