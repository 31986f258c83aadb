/**
 * The members of the cluster, as the replicated rows of kind `member` have them. Whoever is in it
 * was let in by a member: each identity is signed by who admitted it, back to the founder, whom
 * the cluster's id names. A row that does not check is nobody.
 *
 * Cells of one node: `ID` (who it is; written once), `ID/self` (what it says of itself),
 * `ID/drain` (whether it wants mail), `ID/standing` (`left` or `evicted`; absent: a member).
 */
import { isIP } from 'node:net'
import type { Clock } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import { type NodeId, parseNodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import { type Cell, canonicalText, headInForce, type SharedRow } from '../config/merge.ts'
import type { SharedRows } from '../store/shared.ts'
import type { Member, PeerAddress, Roster, Self, Standing } from './contract.ts'
import { clusterIdOf, publicKeys } from './identity.ts'
import { isSigned, KEY_BYTES, signText } from './keys.ts'

export const MEMBER_KIND = 'member'

/** Members of one cluster, those that left included. Hundreds are planned for. */
const MEMBERS_MAX = 4_096
/** Addresses of one node. */
const ADDRESSES_MAX = 8

/** What a node says of itself. */
export type MemberFacts = Pick<
  Member,
  'name' | 'peer' | 'smtp' | 'web' | 'version' | 'features' | 'spool'
>

/** Who asks to be let in: it has proved that it holds both keys. */
export type Applicant = MemberFacts & Pick<Member, 'node' | 'exchange' | 'sign'>

const DRAINS: readonly Member['drain'][] = ['draining', 'drained', 'leaving']

type Fields = Readonly<Record<string, unknown>>

/** The signed part of a row that checked. */
type Admission = Pick<Member, 'exchange' | 'sign' | 'admittedBy' | 'admittedMs'>

export class MemberRoster implements Roster {
  readonly clusterId: string
  readonly self: Self
  readonly #state: SharedRows
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #listeners: (() => void)[] = []
  /** Everybody whose row checked, by id. */
  #all = new Map<NodeId, Member>()
  readonly #reader: MemberReader

  constructor(
    self: Self,
    clusterId: string,
    state: SharedRows,
    deps: { readonly clock: Clock; readonly observer: Observer },
  ) {
    this.self = self
    this.clusterId = clusterId
    this.#state = state
    this.#clock = deps.clock
    this.#observer = deps.observer
    this.#reader = new MemberReader(clusterId, (node, admittedBy) =>
      deps.observer.emit('member.refused', { node, admittedBy }),
    )
    this.#all = this.#reader.read(state.list(MEMBER_KIND))
    state.onChange(MEMBER_KIND, () => this.#refresh())
  }

  members(): readonly Member[] {
    const { node } = this.self
    return [...this.#all.values()]
      .filter(({ standing }) => standing === 'member')
      .sort((a, b) => (a.node === node ? -1 : b.node === node ? 1 : a.node < b.node ? -1 : 1))
  }

  peers(): readonly Member[] {
    return this.members().filter(({ node }) => node !== this.self.node)
  }

  /** Who was a member once, by id. */
  former(): readonly Member[] {
    return [...this.#all.values()]
      .filter(({ standing }) => standing !== 'member')
      .sort((a, b) => (a.node < b.node ? -1 : 1))
  }

  get(node: NodeId): Member | null {
    return this.#all.get(node) ?? null
  }

  byExchange(key: Uint8Array): Member | null {
    for (const member of this.#all.values()) {
      if (Buffer.compare(member.exchange, key) === 0) return member
    }
    return null
  }

  /** By id, or by a name that only one member has; null when there is no such member. */
  find(word: string): Member | null {
    const node = parseNodeId(word)
    if (node !== null) return this.get(node)
    const named = this.members().filter(({ name }) => name === word)
    return named.length === 1 ? (named[0] ?? null) : null
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  /**
   * Writes what this node says of itself, when it says something new. The founder lets itself in.
   * @throws RefusalError when the rows know this node with other keys or not at all, or when it
   * is no member any more: its data and its keys do not belong together
   */
  announce(facts: MemberFacts): void {
    const { node, keys } = this.self
    const known = this.get(node)
    if (known === null && clusterIdOf(node, publicKeys(keys)) !== this.clusterId) {
      throw strange('The settings in the data directory do not know this node.')
    }
    if (known !== null && Buffer.compare(known.exchange, keys.exchange.public) !== 0) {
      throw strange('The keys in the data directory are not those that the cluster knows.')
    }
    if (known !== null && known.standing !== 'member') throw gone(known.standing)
    this.#state.transact(() => {
      if (known === null) this.#admit({ node, ...publicKeys(keys) }, null, 'postern')
      this.#writeSelf(node, facts)
    })
  }

  /**
   * Lets a node in, signed by this one. The same node again is let in again: the answer to it may
   * have been lost. @throws RefusalError as `mayAdmit`; StoreError
   */
  admit(applicant: Applicant, by: string): void {
    this.mayAdmit(applicant)
    const { node, exchange, sign } = applicant
    this.#state.transact(() => {
      if (this.get(node) === null) this.#admit({ node, exchange, sign }, this.self.node, by)
      this.#writeSelf(node, applicant)
    })
  }

  /**
   * @throws RefusalError when the id or the keys of the node are those of another one, or it was
   * a member before
   */
  mayAdmit(applicant: Applicant): void {
    const standing = this.get(applicant.node)?.standing ?? 'member'
    if (standing !== 'member') throw gone(standing)
    this.#refuseTwins(applicant)
    if (this.#all.size < MEMBERS_MAX) return
    throw new RefusalError(
      'conflict',
      null,
      `The cluster has ${MEMBERS_MAX} members, and takes no more.`,
      'Found a second cluster.',
    )
  }

  /** For good. An evicted node stays evicted. @throws RefusalError for a node that is not known */
  markLeft(node: NodeId, by: string): void {
    if (this.#known(node).standing === 'member') this.#write(`${node}/standing`, 'left', by)
  }

  /** For good, and stronger than `left`. @throws RefusalError for a node that is not known */
  evict(node: NodeId, by: string): void {
    if (this.#known(node).standing !== 'evicted') this.#write(`${node}/standing`, 'evicted', by)
  }

  setDrain(node: NodeId, drain: Member['drain'], by: string): void {
    if (this.#known(node).drain !== drain) this.#write(`${node}/drain`, drain, by)
  }

  /** Whom `node` let in, and who is still a member: to be looked at when it was stolen. */
  admittedBy(node: NodeId): readonly Member[] {
    return this.members().filter(({ admittedBy }) => admittedBy === node)
  }

  #known(node: NodeId): Member {
    const member = this.get(node)
    if (member !== null) return member
    throw new RefusalError(
      'notFound',
      'node',
      `There is no node ${node}.`,
      'List them with "postern status".',
    )
  }

  /** Message ids carry the first 8 digits of the node's: two nodes must not share them. */
  #refuseTwins({ node, exchange, sign }: Pick<Applicant, 'node' | 'exchange' | 'sign'>): void {
    const twin = [...this.#all.values()].find((other) => {
      const same = [
        other.node.slice(0, 8) === node.slice(0, 8),
        Buffer.compare(other.exchange, exchange) === 0,
        Buffer.compare(other.sign, sign) === 0,
      ]
      // A member as it is known is no twin of itself.
      return same.includes(true) && !(other.node === node && same[1] && same[2])
    })
    if (twin === undefined) return
    throw new RefusalError(
      'conflict',
      'node',
      `The id ${node} or its keys are too much like those of ${twin.name} (${twin.node}).`,
      'Start the new node with --new-identity, and join again.',
    )
  }

  #admit(
    keys: Pick<Applicant, 'node' | 'exchange' | 'sign'>,
    admittedBy: NodeId | null,
    by: string,
  ): void {
    const signed = {
      exchange: encode(keys.exchange),
      sign: encode(keys.sign),
      admittedBy,
      admittedMs: this.#clock.wallMs(),
    }
    const signature = encode(
      signText(this.self.keys, signedText(this.clusterId, keys.node, signed)),
    )
    this.#write(keys.node, { ...signed, signature }, by)
  }

  #writeSelf(node: NodeId, facts: MemberFacts): void {
    const { name, peer, smtp, web, version, features, spool } = facts
    const key = `${node}/self`
    const before = fieldsOf(textIn(this.#state.cell(MEMBER_KIND, key))) ?? {}
    const said = { name, peer, smtp, web, version, features }
    const after = { ...before, ...said, ...(spool === undefined ? {} : { spool }) }
    if (canonicalText(before) !== canonicalText(after)) this.#write(key, after, 'postern')
  }

  #write(key: string, value: unknown, by: string): void {
    this.#state.write(MEMBER_KIND, key, JSON.stringify(value), by)
  }

  #refresh(): void {
    const before = this.#all
    this.#all = this.#reader.read(this.#state.list(MEMBER_KIND))
    for (const { node, name, standing } of this.#all.values()) {
      const was = before.get(node)?.standing
      if (was === standing) continue
      this.#observer.emit('member.changed', { node, name, standing })
    }
    for (const listener of this.#listeners) listener()
  }
}

/** Reads who is a member out of rows that anybody may have written. */
export class MemberReader {
  readonly #clusterId: string
  readonly #refuse: (node: NodeId, admittedBy: NodeId | null) => void
  /** Texts whose signature checked, so that each is paid for once. */
  #checked = new Set<string>()
  /** Texts that did not, so that each is told once. */
  readonly #refused = new Set<string>()

  /** `refuse` is told of rows that do not check. */
  constructor(clusterId: string, refuse: (node: NodeId, admittedBy: NodeId | null) => void) {
    this.#clusterId = clusterId
    this.#refuse = refuse
  }

  /** Everybody whose row checks, whatever the standing, by id. */
  read(rows: readonly SharedRow[]): Map<NodeId, Member> {
    const cells = new Map<string, Cell>()
    for (const { kind, key, state } of rows) {
      if (kind === MEMBER_KIND && state.shape === 'cell') cells.set(key, state)
    }
    const found = new Map<NodeId, Member>()
    const admissions = this.#admissions(cells)
    for (const [node, admission] of admissions) {
      const self = factsOf(textIn(cells.get(`${node}/self`)))
      const standing = standingOf(cells.get(`${node}/standing`))
      const drain = drainOf(textIn(cells.get(`${node}/drain`)))
      found.set(node, { node, ...self, name: self.name || node, standing, drain, ...admission })
    }
    return found
  }

  /** Every node whose identity checks, in the order of ids. */
  #admissions(cells: ReadonlyMap<string, Cell>): ReadonlyMap<NodeId, Admission> {
    const done = new Map<NodeId, Admission | null>()
    const checked = new Set<string>()
    const admissionOf = (node: NodeId): Admission | null => {
      const known = done.get(node)
      if (known !== undefined) return known
      // Two that admit each other lead nowhere.
      done.set(node, null)
      // Two members may have admitted it at once, each with its signature.
      const heads = [...(cells.get(node)?.heads ?? [])].sort((a, b) => b.stamp - a.stamp)
      for (const { value } of heads) {
        const admission = value === null ? null : this.#check(node, value, admissionOf, checked)
        if (admission === null) continue
        done.set(node, admission)
        return admission
      }
      return null
    }
    const admissions = new Map<NodeId, Admission>()
    for (const key of [...cells.keys()].sort()) {
      const node = parseNodeId(key)
      const admission = node === null ? null : admissionOf(node)
      if (node !== null && admission !== null) admissions.set(node, admission)
    }
    this.#checked = checked
    return admissions
  }

  /** The admission that `value` is, when the signature of a member stands under it. */
  #check(
    node: NodeId,
    value: string,
    admissionOf: (node: NodeId) => Admission | null,
    checked: Set<string>,
  ): Admission | null {
    const fields = fieldsOf(value)
    const admission = fields === null ? null : readAdmission(fields)
    const signer = admission === null ? null : this.#signerOf(node, admission, admissionOf)
    if (fields !== null && admission !== null && signer !== null) {
      const text = signedText(this.#clusterId, node, fields)
      const name = `${encode(signer)} ${String(fields['signature'])} ${text}`
      const signature = decode(fields['signature'])
      if (this.#checked.has(name) || (signature !== null && isSigned(signer, text, signature))) {
        checked.add(name)
        return admission
      }
    }
    if (!this.#refused.has(`${node} ${value}`)) {
      this.#refused.add(`${node} ${value}`)
      this.#refuse(node, admission?.admittedBy ?? null)
    }
    return null
  }

  /** Whose signature must stand under an admission; null: nobody's would do. */
  #signerOf(
    node: NodeId,
    { admittedBy, exchange, sign }: Admission,
    admissionOf: (node: NodeId) => Admission | null,
  ): Uint8Array | null {
    if (admittedBy !== null) return admissionOf(admittedBy)?.sign ?? null
    return clusterIdOf(node, { exchange, sign }) === this.#clusterId ? sign : null
  }
}

/** Members that the rows name, whoever signed them: for before there is a roster. */
export function countMembers(state: Pick<SharedRows, 'list'>): number {
  const keys = new Set(state.list(MEMBER_KIND).map(({ key }) => key))
  return [...keys].filter((key) => parseNodeId(key) !== null && !keys.has(`${key}/standing`)).length
}

/** Fields that are not known here are signed too. */
function signedText(clusterId: string, node: NodeId, { signature: _, ...signed }: Fields): string {
  return `postern member\n${canonicalText({ ...signed, node, clusterId })}`
}

function strange(what: string): RefusalError {
  return new RefusalError(
    'conflict',
    'data',
    what,
    'Restore the whole directory from one backup, or start with --new-identity and join anew.',
  )
}

function gone(standing: Standing): RefusalError {
  const what = standing === 'left' ? 'has left the cluster' : 'was removed from the cluster'
  return new RefusalError(
    'conflict',
    'node',
    `This node ${what}; its id and keys are never taken again.`,
    'Start it with --new-identity, and join with a new token.',
  )
}

function textIn(cell: Cell | null | undefined): string | null {
  return cell === null || cell === undefined ? null : headInForce(cell, 'latest').value
}

function fieldsOf(text: string | null): Fields | null {
  if (text === null) return null
  try {
    const raw: unknown = JSON.parse(text)
    return typeof raw === 'object' && raw !== null && !Array.isArray(raw) ? (raw as Fields) : null
  } catch {
    return null
  }
}

function readAdmission(fields: Fields): Admission | null {
  const { exchange, sign, admittedBy, admittedMs } = fields
  const by = admittedBy === null ? null : parseNodeId(String(admittedBy))
  const keys = [decode(exchange), decode(sign)] as const
  if (keys[0]?.length !== KEY_BYTES || keys[1]?.length !== KEY_BYTES) return null
  if (admittedBy !== null && by === null) return null
  if (typeof admittedMs !== 'number' || !Number.isSafeInteger(admittedMs)) return null
  return { exchange: keys[0], sign: keys[1], admittedBy: by, admittedMs }
}

/** Whatever the heads are: an eviction that was written once is in force for ever. */
function standingOf(cell: Cell | undefined): Standing {
  const said = (cell?.heads ?? []).map(({ value }) => value)
  if (said.includes('"evicted"')) return 'evicted'
  return said.includes('"left"') ? 'left' : 'member'
}

function drainOf(text: string | null): Member['drain'] {
  return DRAINS.find((drain) => text === JSON.stringify(drain)) ?? 'accepting'
}

function factsOf(text: string | null): MemberFacts {
  const { name, peer, smtp, web, version, features, spool: said } = fieldsOf(text) ?? {}
  const spool = spoolOf(said)
  return {
    name: textOf(name, 63),
    peer: addressesOf(peer),
    smtp: textOf(smtp, 300),
    web: textOf(web, 300),
    version: textOf(version, 100),
    features: Array.isArray(features)
      ? features.slice(0, 100).filter((one) => typeof one === 'string')
      : [],
    ...(spool === null ? {} : { spool }),
  }
}

function spoolOf(raw: unknown): NonNullable<Member['spool']> | null {
  const { id, epoch } = (typeof raw === 'object' && raw !== null ? raw : {}) as Fields
  if (typeof id !== 'string' || !/^[0-9a-f]{16}$/.test(id)) return null
  return typeof epoch === 'number' && Number.isSafeInteger(epoch) ? { id, epoch } : null
}

function textOf(raw: unknown, most: number): string {
  return typeof raw === 'string' ? raw.slice(0, most) : ''
}

/** The literal addresses in a list of unknown origin, at most 8. */
export function addressesOf(raw: unknown): readonly PeerAddress[] {
  if (!Array.isArray(raw)) return []
  const found: PeerAddress[] = []
  for (const one of raw.slice(0, ADDRESSES_MAX)) {
    const { host, port } = (typeof one === 'object' && one !== null ? one : {}) as Fields
    if (typeof host !== 'string' || isIP(host) === 0) continue
    if (!isPort(port)) continue
    found.push({ host, port })
  }
  return found
}

export function isPort(raw: unknown): raw is number {
  return typeof raw === 'number' && Number.isInteger(raw) && raw >= 1 && raw <= 65_535
}

function encode(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url')
}

function decode(raw: unknown): Uint8Array | null {
  return typeof raw === 'string' ? new Uint8Array(Buffer.from(raw, 'base64url')) : null
}
