/**
 * Join tokens. Only the node that issued one redeems it, so that single use, expiry and revocation
 * need no agreement; what lets somebody in never leaves it. The others see a summary row of kind
 * `invitation`: `ID` is written by the issuer, `ID/revoked` by whoever revokes it.
 */
import type { Clock } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import { type NodeId, parseNodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import { type Random, randomHex } from '../base/random.ts'
import { isCount } from '../base/raw.ts'
import { cleanName } from '../config/local.ts'
import { headInForce } from '../config/merge.ts'
import type { IssuedTokens } from '../store/invitations.ts'
import type { SharedRows } from '../store/shared.ts'
import type { PeerAddress, TokenView } from './contract.ts'
import type { Applicant, MemberRoster } from './roster.ts'
import { TOKEN_ID_BYTES } from './secure.ts'
import { hexOf, pskOf, SECRET_BYTES, TOKEN_ADDRESSES_MAX, writeToken } from './token.ts'

export const INVITATION_KIND = 'invitation'

const MINUTES_MAX = 1_440
const USES_MAX = 100
/** Open tokens of one node. */
const OPEN_MAX = 100
/** Handshakes with the token's id that fail: somebody guesses. */
const FAILURES_MAX = 10
/** Who comes late is told why; after this long the token is simply not known. */
const TOLD_MS = 7 * 86_400_000
/** How long the list shows what is over. */
const SHOWN_MS = 30 * 86_400_000

export type Issued = { readonly id: string; readonly token: string; readonly expiresMs: number }

export type InviteInput = {
  readonly minutes?: number
  readonly uses?: number
  readonly name?: string | null
  /** Id or name of a member that is gone for good: letting the new one in removes it. */
  readonly replaces?: string | null
}

/** What every node knows of a token. */
type Summary = {
  readonly issuer: NodeId
  readonly issuedMs: number
  readonly by: string
  readonly expiresMs: number
  readonly uses: number
  /** Node ids. */
  readonly usedBy: readonly string[]
  /** The member in whose place the new one comes; null: in nobody's. */
  readonly replaces: NodeId | null
}

type InvitationsOptions = {
  readonly roster: MemberRoster
  readonly state: SharedRows
  readonly issued: IssuedTokens
  /** Where this node listens for peers, the best first. */
  readonly addresses: () => readonly PeerAddress[]
}

export class Invitations {
  readonly #options: InvitationsOptions
  readonly #deps: { readonly clock: Clock; readonly random: Random; readonly observer: Observer }

  constructor(
    options: InvitationsOptions,
    deps: { readonly clock: Clock; readonly random: Random; readonly observer: Observer },
  ) {
    this.#options = options
    this.#deps = deps
  }

  /** The token is given once, and kept nowhere. @throws RefusalError for a bound; StoreError */
  invite(input: InviteInput, by: string): Issued {
    const { minutes = 15, uses = 1, name = null } = input
    const { roster, state, issued, addresses } = this.#options
    bounded('minutes', minutes, MINUTES_MAX)
    bounded('uses', uses, USES_MAX)
    const replaces = this.#replaced(input.replaces ?? null, uses)
    if (name !== null) this.#mayName(name, uses, replaces)
    const nowMs = this.#deps.clock.wallMs()
    const reachable = addresses().slice(0, TOKEN_ADDRESSES_MAX)
    if (reachable.length === 0) throw noAddress()
    if (this.#openHere() >= OPEN_MAX) throw tooMany()
    const id = randomHex(this.#deps.random, TOKEN_ID_BYTES)
    const secret = this.#deps.random.bytes(SECRET_BYTES)
    const { self, clusterId } = roster
    // The token carries whole seconds: what it says and what is kept are the same.
    const expiresMs = Math.floor((nowMs + minutes * 60_000) / 1_000) * 1_000
    state.transact(() => {
      issued.forget(nowMs - TOLD_MS)
      issued.add({ id, psk: pskOf(clusterId, secret), expiresMs, usesLeft: uses, name })
      const issuer = self.node
      this.#write(id, { issuer, issuedMs: nowMs, by, expiresMs, uses, usedBy: [], replaces }, by)
    })
    this.#deps.observer.emit('join.issued', { token: id, by, expiresMs, uses })
    const issuer = self.keys.exchange.public
    return {
      id,
      token: writeToken({ clusterId, id, secret, issuer, expiresMs, addresses: reachable }),
      expiresMs,
    }
  }

  /** Of all nodes, newest first. */
  list(): readonly TokenView[] {
    return this.#summaries()
      .map(([id, summary]) => this.#view(id, summary))
      .sort((a, b) => b.issuedMs - a.issuedMs || (a.id < b.id ? -1 : 1))
  }

  /**
   * On the issuer at once; elsewhere as soon as the issuer hears of it.
   * @throws RefusalError for a token that is not known or lets nobody in any more; StoreError
   */
  revoke(id: string, by: string): void {
    const found = this.list().find((token) => token.id === id)
    if (found === undefined) {
      throw new RefusalError(
        'notFound',
        'id',
        `There is no token ${id}.`,
        'List them with "postern invite --list".',
      )
    }
    if (found.state !== 'open') {
      throw new RefusalError(
        'conflict',
        'id',
        `The token ${id} is ${found.state} already.`,
        'It lets nobody in.',
      )
    }
    this.#revoke(id, by)
  }

  /**
   * Takes what is long over from the list of all nodes, whoever issued it; gives how many. One node
   * does it for all (`jobs.ts`). @throws StoreError
   */
  retire(): number {
    const { state } = this.#options
    const beforeMs = this.#deps.clock.wallMs() - SHOWN_MS
    const over = this.#summaries().filter(([, { expiresMs }]) => expiresMs <= beforeMs)
    if (over.length === 0) return 0
    state.transact(() => {
      for (const key of over.flatMap(([id]) => [id, `${id}/revoked`])) {
        if (state.cell(INVITATION_KIND, key) === null) continue
        state.write(INVITATION_KIND, key, null, 'postern')
      }
    })
    return over.length
  }

  // ---- what the issuer needs when somebody comes ----

  /** Null: never issued here, or forgotten. A token that is over has one: its owner is told why. */
  pskOf(tokenId: Uint8Array): Uint8Array | null {
    return this.#options.issued.get(hexOf(tokenId))?.psk ?? null
  }

  /** A handshake under its name failed: after ten the token is burned. */
  failed(tokenId: Uint8Array): void {
    const id = hexOf(tokenId)
    const { issued } = this.#options
    if (issued.get(id) === null || issued.countFailure(id) < FAILURES_MAX) return
    if (this.#stateOf(id) === 'open') this.#revoke(id, 'postern')
  }

  /**
   * The name that the token gives, or null, when it lets `node` in now: also a second time, when
   * the answer to the first was lost. @throws RefusalError in the words for the joiner
   */
  check(tokenId: Uint8Array, node: NodeId): string | null {
    const id = hexOf(tokenId)
    const token = this.#options.issued.get(id)
    const summary = this.#summary(id)
    if (token === null || summary === null) throw unknownToken()
    const state = this.#stateOf(id)
    const again = summary.usedBy.includes(node)
    if (state === 'revoked') throw over('was revoked')
    if (token.expiresMs <= this.#deps.clock.wallMs()) throw over('has expired')
    if (!again && (token.usesLeft <= 0 || state === 'used')) throw over('was used already')
    return token.name
  }

  /**
   * One use less and one member more, and the one that it replaces removed, or nothing of it: one
   * commit. @throws RefusalError; StoreError
   */
  redeem(tokenId: Uint8Array, applicant: Applicant): void {
    const { roster, state, issued } = this.#options
    const id = hexOf(tokenId)
    state.transact(() => {
      this.check(tokenId, applicant.node)
      const summary = this.#summary(id)
      if (summary === null) throw unknownToken()
      if (summary.replaces !== null) roster.evict(summary.replaces, summary.by)
      roster.admit(applicant, summary.by)
      if (summary.usedBy.includes(applicant.node)) return
      if (!issued.use(id)) throw over('was used already')
      this.#write(id, { ...summary, usedBy: [...summary.usedBy, applicant.node] }, 'postern')
    })
  }

  /** Whose mail is to be taken over at once when the new node is in. */
  #replaced(word: string | null, uses: number): NodeId | null {
    if (word === null) return null
    const { roster } = this.#options
    const member = roster.find(word)
    if (member?.standing !== 'member') throw notMember(word)
    if (member.node === roster.self.node || uses !== 1) throw badReplacement(uses)
    return member.node
  }

  /** It greets other mail servers with its name, and people find it by it. */
  #mayName(name: string, uses: number, replaces: NodeId | null): void {
    if (name === '' || name !== cleanName(name)) throw badName()
    const { roster } = this.#options
    const isTaken = roster.members().some((one) => one.name === name && one.node !== replaces)
    if (!isTaken && uses === 1) return
    throw new RefusalError(
      'conflict',
      'name',
      isTaken ? `A node has the name ${name} already.` : 'A name is for one node only.',
      'Give another name, or none: then a node is called as it calls itself.',
    )
  }

  #view(id: string, summary: Summary): TokenView {
    const { issuer, issuedMs, by, expiresMs, usedBy } = summary
    const { roster } = this.#options
    const names = usedBy.map((word) => roster.find(word)?.name ?? word)
    const state = this.#state(id, summary)
    const used = names.length === 0 ? null : names.join(', ')
    return { id, state, issuer, issuedMs, by, expiresMs, usedBy: used }
  }

  #stateOf(id: string): TokenView['state'] {
    const summary = this.#summary(id)
    return summary === null ? 'revoked' : this.#state(id, summary)
  }

  #state(id: string, { issuer, uses, usedBy, expiresMs }: Summary): TokenView['state'] {
    const { state, roster } = this.#options
    if (usedBy.length >= uses) return 'used'
    const revoked = state.cell(INVITATION_KIND, `${id}/revoked`)
    // A removed node may still hold its tokens, and nobody would obey it.
    const isMember = (roster.get(issuer)?.standing ?? 'member') === 'member'
    if (!isMember || revoked?.heads.some(({ value }) => value !== null)) return 'revoked'
    return expiresMs <= this.#deps.clock.wallMs() ? 'expired' : 'open'
  }

  #openHere(): number {
    const { node } = this.#options.roster.self
    return this.list().filter(({ issuer, state }) => issuer === node && state === 'open').length
  }

  #revoke(id: string, by: string): void {
    const value = JSON.stringify({ atMs: this.#deps.clock.wallMs() })
    this.#options.state.write(INVITATION_KIND, `${id}/revoked`, value, by)
    this.#deps.observer.emit('join.revoked', { token: id, by })
  }

  #write(id: string, summary: Summary, by: string): void {
    this.#options.state.write(INVITATION_KIND, id, JSON.stringify(summary), by)
  }

  #summary(id: string): Summary | null {
    const cell = this.#options.state.cell(INVITATION_KIND, id)
    return cell === null ? null : summaryOf(headInForce(cell, 'latest').value)
  }

  #summaries(): readonly (readonly [string, Summary])[] {
    return this.#options.state.list(INVITATION_KIND).flatMap(({ key, state }) => {
      if (state.shape !== 'cell' || !/^[0-9a-f]{12}$/.test(key)) return []
      const summary = summaryOf(headInForce(state, 'latest').value)
      return summary === null ? [] : [[key, summary] as const]
    })
  }
}

/** Null: deleted, or nothing that this version understands. */
function summaryOf(text: string | null): Summary | null {
  if (text === null) return null
  try {
    const raw = JSON.parse(text) as { readonly [Field in keyof Summary]?: unknown } | null
    const issuer = parseNodeId(String(raw?.issuer))
    const { issuedMs, expiresMs, uses, usedBy, by } = raw ?? {}
    if (issuer === null || !isCount(issuedMs) || !isCount(expiresMs) || !isCount(uses)) return null
    const nodes = Array.isArray(usedBy) ? usedBy.filter((one) => typeof one === 'string') : []
    const replaces = parseNodeId(String(raw?.replaces))
    return { issuer, issuedMs, expiresMs, uses, usedBy: nodes, by: String(by ?? ''), replaces }
  } catch {
    return null
  }
}

function bounded(field: string, value: number, most: number): void {
  if (Number.isInteger(value) && value >= 1 && value <= most) return
  throw new RefusalError(
    'invalid',
    field,
    `${field} ${value} is out of range.`,
    `Give 1 to ${most}.`,
  )
}

function badName(): RefusalError {
  return new RefusalError(
    'invalid',
    'name',
    'This cannot be the name of a node.',
    'Give 1 to 63 letters, digits, dots, hyphens, underscores or spaces, or leave it out.',
  )
}

function notMember(word: string): RefusalError {
  return new RefusalError(
    'notFound',
    'replaces',
    `There is no member ${JSON.stringify(word.slice(0, 64))} to replace.`,
    'See the nodes that there are with "postern status".',
  )
}

function badReplacement(uses: number): RefusalError {
  return new RefusalError(
    'conflict',
    'replaces',
    uses === 1 ? 'A node does not replace itself.' : 'One node is replaced by one node only.',
    uses === 1 ? 'Make the token on another node.' : 'Make a token with one use.',
  )
}

function noAddress(): RefusalError {
  return new RefusalError(
    'unavailable',
    null,
    'This node knows no address at which a new node could reach it.',
    'Start it with --advertise HOST:PORT.',
  )
}

function tooMany(): RefusalError {
  return new RefusalError(
    'conflict',
    null,
    `${OPEN_MAX} tokens of this node are open.`,
    'Revoke some with "postern invite --revoke ID".',
  )
}

function unknownToken(): RefusalError {
  return over('is not known here any more')
}

function over(why: string): RefusalError {
  return new RefusalError(
    'forbidden',
    'token',
    `The token ${why}.`,
    'Make a new one with "postern invite" on any node of the cluster.',
  )
}
