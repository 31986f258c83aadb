/**
 * What a person or a script may ask or change: the one door for the pages, the API and the
 * commands. Every change names its author. All refusals are RefusalError.
 */
import type { ClusterView, NodeState, TokenView } from '../cluster/contract.ts'
import type { SettingValue } from '../config/schema.ts'
import type { SigningKey } from '../config/signing.ts'
import type { Domain } from '../config/snapshot.ts'
import type { Preview } from '../mail/inspect/contract.ts'
import type { Counts, Label } from '../message/learned.ts'
import type {
  Claim,
  HeldRow,
  Judgement,
  NodeName,
  QueueRow,
  TraceEvent,
  TraceRow,
} from '../message/rows.ts'
import type { MapRow, RuleRow, ScoreRow, YaraRow } from '../store/detection.ts'
import type { OutsideKind } from './outside.ts'

export type { ClusterEvent, ClusterView, NodeState, TokenView } from '../cluster/contract.ts'
export type { MapRow, RuleRow, ScoreRow, YaraRow } from '../store/detection.ts'

export type Page<Row> = {
  readonly rows: readonly Row[]
  readonly total: number
  readonly cursor: string | null
}

/** Who acts: an operator of the web, or `cli` through the control socket. */
export type Author = { readonly name: string; readonly role: 'admin' | 'viewer' }

export type SettingRow = {
  readonly key: string
  readonly value: SettingValue
  readonly initial: SettingValue
  readonly changedBy: string | null
  readonly changedMs: number | null
}

export type ChangeRow = {
  /** Names the change to `undoChange`, on every node the same. */
  readonly id: string
  readonly atMs: number
  readonly by: string
  /** `setting/policy.hold`, `domain/example.com`, `operator/ruiz`. */
  readonly key: string
  readonly before: string | null
  readonly after: string | null
}

export type NodeStatus = {
  readonly node: string
  readonly name: string
  readonly version: string
  readonly ready: boolean
  /** Why it is not ready, whole sentences; empty when ready. */
  readonly problems: readonly string[]
  /** `sha256//…` of the web key, as curl's --pinnedpubkey takes it; null on plain http. */
  readonly webPin: string | null
  readonly startedMs: number
  readonly smtp: string
  readonly web: string
  readonly queue: { readonly messages: number; readonly oldestMs: number | null }
  readonly held: number
  readonly disk: { readonly freeBytes: number; readonly totalBytes: number }
  readonly inspectors: {
    readonly processes: number
    readonly ready: number
    readonly missing: readonly string[]
  }
  readonly possibleDuplicates: number
  readonly nodes: readonly {
    readonly id: string
    readonly name: string
    readonly state: NodeState
    readonly lagMs: number
  }[]
}

/** The numbers of the first screen. */
export type OverviewNumbers = {
  /** Counts of messages and recipients since `sinceMs`, by trace state. */
  readonly counts: Readonly<
    Record<'delivered' | 'held' | 'rejected' | 'deferred' | 'waiting' | 'bounced', number>
  >
  /** Oldest first; equal buckets. */
  readonly series: readonly {
    readonly atMs: number
    readonly delivered: number
    readonly held: number
    readonly rejected: number
    readonly deferred: number
  }[]
  readonly topRules: readonly { readonly rule: string; readonly count: number }[]
  readonly topSenders: readonly { readonly sender: string; readonly count: number }[]
}

export type HeldDetail = {
  readonly row: HeldRow
  readonly claims: readonly (Claim & { readonly recipient: string })[]
  /** Its owner cannot decide now; null: it can, or nothing is left to decide. */
  readonly waits: HeldWaits | null
}

/** What a held mail waits for when its owner is gone (design: mail.md, Release once). */
export type HeldWaits = {
  /** `waits for mx2`, or `mx2 is gone, and nobody has its content`. */
  readonly words: string
  /**
   * Wall ms since when it may have been released there without that being known here. A release
   * is refused as `doubtful` unless it is asked for with `anyway`. Null: `anyway` changes nothing.
   */
  readonly doubtSinceMs: number | null
}

export type MessageDetail = {
  readonly rows: readonly TraceRow[]
  readonly events: readonly TraceEvent[]
  readonly judgement: Judgement | null
  readonly held: HeldDetail | null
  /** Its row as its owner gives it; of an owner that is silent, as a node with a copy does. */
  readonly queue: QueueRow | null
  /** No row, and its history says that it waits with this node, which gives none. */
  readonly queuedOn: NodeName | null
}

export type SearchQuery = {
  /** The query language of the pages (design: ui/README, Query). */
  readonly text: string
  readonly limit: number
  readonly cursor: string | null
}

export type SearchResult = Page<TraceRow> & {
  /** The query in words, and the parts that were not understood. */
  readonly words: string
  readonly mistakes: readonly string[]
}

export type NextHopProbe = { readonly hop: string; readonly ok: boolean; readonly answer: string }

export interface Admin extends ClusterAdmin, DetectionAdmin, LearningAdmin, SigningAdmin {
  status(): NodeStatus
  metrics(): string

  needsSetup(): boolean
  /** The one-time code printed by `serve`; wrong ones lock like a login. */
  setupCodeMatches(code: string, clientIp: string): boolean
  /** First operator; closes the set-up for good. */
  setup(input: {
    readonly code: string
    readonly name: string
    readonly password: string
    readonly clientIp: string
  }): Promise<void>

  /** @throws RefusalError unauthenticated, or locked with the time to wait */
  login(
    name: string,
    password: string,
    clientIp: string,
  ): Promise<{ readonly session: string; readonly author: Author }>
  authenticate(session: string): Author | null
  logout(session: string): void

  operators(): readonly {
    readonly name: string
    readonly role: string
    readonly addedMs: number
    readonly lastSeenMs: number | null
  }[]
  addOperator(author: Author, name: string, password: string, role: string): Promise<void>
  removeOperator(author: Author, name: string): void
  changePassword(author: Author, name: string, password: string): Promise<void>

  domains(): readonly Domain[]
  /** Adds or replaces. Undefined fields keep their value. Makes waiting mail of the domain due. */
  putDomain(
    author: Author,
    name: string,
    input: {
      readonly nextHops?: readonly string[]
      readonly recipients?: readonly string[] | null
      readonly hold?: number | null
      readonly reject?: number | null
      readonly enforce?: boolean | null
      /** As for `setSetting`, of the fields that are given. */
      readonly seen?: string
    },
  ): Domain
  /** With its signing keys, for good. @throws RefusalError notFound */
  removeDomain(author: Author, name: string): void
  /** Connects, reads the greeting, says EHLO and QUIT. */
  probeNextHop(hop: string): Promise<NextHopProbe>

  settings(): readonly SettingRow[]
  setting(key: string): SettingRow
  /** `value` as JSON type of the setting, or as the text that a form or the command line gives. */
  /**
   * `seen`: what `seenOf` gave with the form. Set again since, here or on a peer: conflict, which
   * names the value that stands; nothing is changed.
   */
  setSetting(author: Author, key: string, value: unknown, seen?: string): SettingRow
  /** What a form shows that is made now, of `setting/KEY` or `domain/NAME`: an opaque text. */
  seenOf(key: string): string
  changes(limit: number): readonly ChangeRow[]
  /** Gives the key of what is as it was before. */
  undoChange(author: Author, id: string): string

  overview(sinceMs: number, buckets: number): OverviewNumbers
  search(query: SearchQuery): SearchResult
  message(id: string): Promise<MessageDetail>

  held(
    query: SearchQuery,
  ): Page<HeldRow> & { readonly words: string; readonly mistakes: readonly string[] }
  heldOne(id: string): HeldDetail
  heldPreview(id: string): Promise<Preview>
  /**
   * What the rules and settings of today say of a held mail; nothing changes. What was seen of its
   * client at the door counts as it did then. @throws RefusalError as `heldPreview`
   */
  heldAgain(id: string): Promise<Judgement>
  /** The message as it was received, less nothing; for download and source view. */
  heldSource(
    id: string,
  ): Promise<{ readonly stream: ReadableStream<Uint8Array>; readonly sizeBytes: number }>
  /**
   * All undecided recipients of the message, or one. Returns when it is in the queue, or noted for
   * an owner that does not answer (`row.pending`). `anyway`: also when it could arrive twice.
   * @throws RefusalError doubtful: it may have been released; ask again with `anyway`
   */
  release(author: Author, id: string, recipient?: string, anyway?: boolean): Promise<HeldDetail>
  deleteHeld(author: Author, id: string, recipient?: string): Promise<HeldDetail>

  /** What waits on all nodes. A node that does not answer in its time is named. */
  queue(query: QueueQuery): Promise<QueuePage>
  /** Makes one message, or all, due now, on whichever node it waits. */
  retry(author: Author, id: string | null): Promise<Retried>
  /**
   * Gives up on a message, wherever it waits: undelivered recipients are dropped, with a DSN when
   * `bounce`. @throws RefusalError unavailable when its owner does not answer
   */
  drop(author: Author, id: string, bounce: boolean): Promise<void>
}

export type QueueQuery = {
  readonly limit: number
  readonly cursor: string | null
  /** Only mail of which no other node has said that its copy is durable. */
  readonly alone?: boolean
}

/** Of all nodes, newest first. */
export type QueuePage = Page<QueueRow> & {
  /**
   * Nodes that gave no answer. Of their mail the rows hold what others have copies of, and `total`
   * may count such a mail once for each copy.
   */
  readonly silent: readonly NodeName[]
}

/** How many messages are due now, and the nodes that were not asked. */
export type Retried = { readonly retried: number; readonly silent: readonly NodeName[] }

// ---- the cluster ----

/** Two or more values of one cell that nobody has seen together. */
export type ConflictRow = {
  /** `setting/policy.hold`, `domain/example.com/nextHops`. */
  readonly key: string
  /** The one in force first. Names itself in `keep`. */
  readonly sides: readonly {
    readonly id: string
    /** JSON; null: deleted. */
    readonly value: string | null
    readonly by: string
    readonly node: string
    readonly atMs: number
  }[]
}

export type Invitation = {
  readonly token: string
  /** The whole line for a fresh machine. */
  readonly command: string
  readonly expiresMs: number
}

export type ApiTokenRow = {
  readonly id: string
  readonly name: string
  readonly role: 'admin' | 'viewer'
  readonly by: string
  readonly addedMs: number
  readonly expiresMs: number | null
}

/** An entry of the allow or the block list. */
export type ListEntry = {
  readonly list: 'allow' | 'block'
  /**
   * `ip`: an address or network. `sender`: an address, or `@domain`; allowed only where somebody
   * vouches for the author.
   */
  readonly kind: 'ip' | 'sender'
  readonly value: string
  readonly note: string
  readonly by: string
  readonly addedMs: number
}

export type Alarm = {
  /**
   * `clock`: settings are read-only here, because the clock is wrong. `config`: the newest
   * configuration does not hold, and an older one is in force. `duplicate`: two machines run as
   * one node.
   */
  readonly kind: 'clock' | 'config' | 'duplicate'
  /** What is so, and what to do: whole sentences. */
  readonly message: string
  readonly advice: string
}

/** What somebody should look at, as long as it is so. */
export type Alert = {
  /** The same while it lasts: `dead 4f1d2c3b5a697887`. */
  readonly id: string
  readonly kind: AlertKind
  /** `bad`: mail is in danger, waits or is refused now. `warn`: it should be mended before it is. */
  readonly level: 'bad' | 'warn'
  /** Where it is; null: nowhere in particular. */
  readonly node: NodeName | null
  /** Wall ms since when it is so, as far as this node knows. */
  readonly sinceMs: number
  /** A few words: `mx2 does not answer`. */
  readonly title: string
  /** What it means: one or two sentences. */
  readonly meaning: string
  /** What to do, or that nothing has to be done: a sentence. */
  readonly advice: string
  /** The command that does it; null when none does. */
  readonly command: string | null
}

export type AlertKind =
  | Alarm['kind']
  /** Name servers that do not answer, lists in the DNS that are left out, networks that are refused. */
  | OutsideKind
  | 'inspector'
  /** A key that signs and whose record the DNS has not. */
  | 'signing'
  /** A node that gives no answer. */
  | 'dead'
  /** It takes no mail although nobody drained it. */
  | 'notReady'
  /** Mail that only one node has. */
  | 'alone'
  | 'inDoubt'
  | 'disk'
  /** It refuses the copies of others. */
  | 'refused'
  | 'spool'
  | 'drained'
  /** Rows of the future. */
  | 'parked'
  | 'rolledBack'
  /** Held mail that waits for a node, or for a person. */
  | 'pending'
  /** Told by a newer node. */
  | 'other'

/** What the node can do with the cluster. Node names or ids are taken in `node`. */
export interface ClusterAdmin {
  cluster(): ClusterView
  /** Called after every change worth showing, at most 4 times a second. Gives how to stop it. */
  watchCluster(listener: () => void): () => void
  /** What every page tells its reader about this node; empty when all is well. */
  alarms(): readonly Alarm[]
  /** All that somebody should look at, the worst first; empty when all is well. */
  alerts(): readonly Alert[]

  /**
   * Minutes 1..1440, uses 1..100. `replaces`: id or name of a member that is gone for good; it is
   * removed when the new one is in, and its mail is taken over at once.
   */
  invite(
    author: Author,
    input: {
      readonly minutes?: number
      readonly uses?: number
      readonly name?: string | null
      readonly replaces?: string | null
    },
  ): Invitation
  invitations(): readonly TokenView[]
  revokeInvitation(author: Author, id: string): void

  /**
   * This node, which must be alone, joins the cluster that issued the token. Its own operators and
   * domains go: it must have none, or `discard`.
   * @throws RefusalError with the remedy; nothing changed
   */
  join(author: Author, token: string, discard?: boolean): Promise<void>
  /** No new mail for this node, or for another one in reach; its queue goes on. */
  drain(author: Author, node: string | null): Promise<void>
  undrain(author: Author, node: string | null): Promise<void>
  /**
   * This node leaves for good, as soon as other nodes have all that it has; `abandon`: at once.
   * @throws RefusalError conflict with the counts: not yet, it goes on by itself
   */
  leave(author: Author, abandon: boolean): Promise<void>
  /**
   * A dead or stolen node: its keys are refused everywhere from now on. Returns when its queue, as
   * far as this node has copies of it, is taken over, or after 10 s.
   */
  removeNode(author: Author, node: string): Promise<RemovedNode>

  conflicts(): readonly ConflictRow[]
  /** @throws RefusalError notFound; conflict when the sides are others by now */
  keep(author: Author, key: string, side: string): void

  apiTokens(): readonly ApiTokenRow[]
  /** The token is given once, and kept nowhere. */
  addApiToken(
    author: Author,
    input: { readonly name: string; readonly role: string; readonly days?: number | null },
  ): { readonly token: string; readonly row: ApiTokenRow }
  removeApiToken(author: Author, id: string): void
  /** Null: no such token, expired or revoked. */
  authenticateToken(token: string): Author | null

  listEntries(list: 'allow' | 'block'): readonly ListEntry[]
  addListEntry(
    author: Author,
    input: {
      readonly list: string
      readonly kind: string
      readonly value: string
      readonly note?: string
    },
  ): ListEntry
  removeListEntry(author: Author, list: string, kind: string, value: string): void

  /** Client networks that asked for too many unknown recipients, and until when they are refused. */
  bans(): readonly BanView[]
  /** On all nodes. @throws RefusalError notFound */
  liftBan(author: Author, network: string): void
}

export type BanView = {
  /** An IPv4 address, or an IPv6 /64. */
  readonly network: string
  readonly untilMs: number
}

/** A rule and what it weighs. */
export type RuleScore = {
  readonly rule: string
  /** Its usual weight; null: this version does not know the rule. */
  readonly initial: number | null
  /** What the operator gave it; null: its own counts. */
  readonly score: number | null
  readonly says: string
  /** A rule of the operator. */
  readonly own: boolean
}

/** `forget`: as if it had never been learnt. */
export type LearnAs = Label | 'forget'

/** A mail that was learnt, and what is known with it. */
export type Lesson = Counts & {
  /** Of the mail, the same on every way that it came. */
  readonly fingerprint: string
  readonly subject: string
  readonly label: Label | null
  readonly before: Label | null
  /** Who got a link or a file of it already; null: nobody, or it was not learnt as spam. */
  readonly flip: Flip | null
}

/** Delivered mail that has something of a mail that is bad. */
export type Flip = {
  /** Finds them in the trace. */
  readonly query: string
  /** More than 10,000 count as 10,001. */
  readonly recipients: number
}

/** What operators teach all nodes. In force here when it returns. */
export interface LearningAdmin {
  /** Mails that were learnt, and how many of each class there must be before they count. */
  learning(): Counts & { readonly minimum: number }
  /** @throws RefusalError unavailable when nobody in reach has the mail; invalid as LearnAs */
  learnHeld(author: Author, id: string, as: string): Promise<Lesson>
  /** A mail by its source; `domain` of its recipients, null: unknown. */
  learnSource(author: Author, bytes: Uint8Array, as: string, domain: string | null): Promise<Lesson>
}

/** What an operator adds to detection. */
export interface DetectionAdmin {
  ownRules(): readonly RuleRow[]
  scores(): readonly ScoreRow[]
  maps(): readonly MapRow[]
  yara(): readonly YaraRow[]
  ruleScores(): readonly RuleScore[]
  /**
   * `kind` rule: `{score, on, describe, look}`; score: `{score}`; map: `{entries}`; yara:
   * `{source}`. In force on this node when it returns.
   * @throws RefusalError invalid, with the field; notFound
   */
  putDetection(author: Author, kind: string, name: string, value: unknown): Promise<void>
  /** @throws RefusalError notFound */
  removeDetection(author: Author, kind: string, name: string): void
}

/** A key with which mail of a domain is signed, and the record that the DNS must have. */
export type SigningKeyRow = SigningKey & {
  readonly recordName: string
  readonly record: string
  /** This node can sign with it. */
  readonly isHere: boolean
  /** It signs, and this is what the DNS has instead of its record: a sentence. Null: nothing is known to be wrong. */
  readonly trouble: string | null
}

/** DKIM keys of our domains: the same on all nodes. */
export interface SigningAdmin {
  /** Of one domain, or all. */
  signingKeys(domain?: string): readonly SigningKeyRow[]
  /** It waits until the DNS has its record. @throws RefusalError invalid, conflict */
  addSigningKey(
    author: Author,
    input: { readonly domain: string; readonly selector: string; readonly algorithm: string },
  ): Promise<SigningKeyRow>
  /** It signs from now on. @throws RefusalError notFound; conflict: the DNS has not its record */
  checkSigningKey(author: Author, domain: string, selector: string): Promise<SigningKeyRow>
  /** It signs no more; its record must stay as long as mail is on its way. @throws RefusalError */
  retireSigningKey(author: Author, domain: string, selector: string): SigningKeyRow
  /** @throws RefusalError notFound */
  removeSigningKey(author: Author, domain: string, selector: string): void
}

export type RemovedNode = {
  readonly node: string
  readonly name: string
  /** Queued mail of it of which this node had copies, and that is taken over when this is said. */
  readonly taken: number
  /** Held mail that it owned, as far as is known here. */
  readonly held: number
  /** What it could read and an operator should renew, whole sentences. */
  readonly renew: readonly string[]
}
