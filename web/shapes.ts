/** Schemas of what the API answers; wire.ts makes the values, test/web.test.ts holds them together. */
import { t } from 'elysia'

const TIME = t.String({ format: 'date-time', description: 'ISO 8601 UTC' })
const TEXTS = t.Array(t.String())
const orNull = <Schema extends Parameters<typeof t.Union>[0][number]>(schema: Schema) =>
  t.Union([schema, t.Null()])

export const DONE = t.Object({ done: t.Literal(true) })
export const UNDONE = t.Object({
  done: t.Literal(true),
  key: t.String({ description: 'What is as it was, as `setting/policy.hold`' }),
})
export const LEARNING = t.Object({
  spam: t.Number({ description: 'Mails that all nodes have learnt as spam' }),
  ham: t.Number(),
  minimum: t.Number({ description: 'Of each, before they count' }),
})
const LABEL = t.Union([t.Literal('spam'), t.Literal('ham'), t.Null()])
export const LESSON = t.Object({
  fingerprint: t.String({ description: 'Of the mail, the same on every way that it came' }),
  subject: t.String(),
  label: LABEL,
  before: LABEL,
  flip: orNull(
    t.Object({
      query: t.String({ description: 'Finds delivered mail with a link or a file of it' }),
      recipients: t.Number(),
    }),
  ),
  spam: t.Number(),
  ham: t.Number(),
})
export const REMOVED = t.Object({ name: t.String(), removed: t.Literal(true) })
const NODES = t.Array(t.Object({ id: t.String(), name: t.String() }), {
  description: 'Nodes that gave no answer',
})
export const SILENT = { silent: NODES }
export const RETRIED = t.Object({ retried: t.Number(), silent: NODES })
export const LOGIN = t.Object({ name: t.String(), role: t.String(), csrf: t.String() })

export const ERROR = t.Object({
  error: t.Object({
    code: t.String({
      description:
        'invalid, notFound, conflict, unauthenticated, forbidden, locked, unavailable or failed',
    }),
    field: orNull(t.String()),
    message: t.String(),
    remedy: t.String(),
  }),
})

export const WORDS = {
  words: t.String({ description: 'The query read back' }),
  mistakes: t.Array(t.String(), { description: 'Parts of the query that are not applied' }),
}

export function list(
  row: Parameters<typeof t.Array>[0],
  more: Parameters<typeof t.Object>[0] = {},
) {
  return t.Object({
    rows: t.Array(row),
    total: t.Number(),
    cursor: orNull(t.String({ description: 'Ask again with it for the rows after these' })),
    ...more,
  })
}

export const ALERT = t.Object({
  id: t.String({ description: 'The same while it lasts' }),
  kind: t.String({
    description:
      'dead, notReady, alone, inDoubt, disk, refused, spool, drained, parked, rolledBack, pending, clock, config, duplicate or other',
  }),
  level: t.String({ description: 'bad or warn' }),
  node: orNull(t.String()),
  nodeName: orNull(t.String()),
  since: TIME,
  title: t.String(),
  meaning: t.String(),
  advice: t.String(),
  command: orNull(t.String({ description: 'What to run' })),
})

export const STATUS = t.Object({
  node: t.String(),
  name: t.String(),
  version: t.String(),
  ready: t.Boolean(),
  problems: TEXTS,
  webPin: orNull(t.String({ description: 'As curl --pinnedpubkey takes it' })),
  startedAt: TIME,
  smtp: t.String(),
  web: t.String(),
  queue: t.Object({ messages: t.Number(), oldestAt: orNull(TIME) }),
  held: t.Number(),
  disk: t.Object({ freeBytes: t.Number(), totalBytes: t.Number() }),
  inspectors: t.Object({ processes: t.Number(), ready: t.Number(), missing: TEXTS }),
  possibleDuplicates: t.Number(),
  nodes: t.Array(
    t.Object({ id: t.String(), name: t.String(), state: t.String(), lagMs: t.Number() }),
  ),
  alerts: t.Array(ALERT),
})

const COUNTS = ['delivered', 'held', 'rejected', 'deferred', 'waiting', 'bounced'] as const

export const OVERVIEW = t.Object({
  counts: t.Object(Object.fromEntries(COUNTS.map((state) => [state, t.Number()]))),
  series: t.Array(
    t.Object({
      at: TIME,
      delivered: t.Number(),
      held: t.Number(),
      rejected: t.Number(),
      deferred: t.Number(),
    }),
  ),
  topRules: t.Array(t.Object({ rule: t.String(), count: t.Number() })),
  topSenders: t.Array(t.Object({ sender: t.String(), count: t.Number() })),
})

const FINDING = t.Object({ rule: t.String(), score: t.Number(), evidence: t.String() })
const UNKNOWN = t.Object({ inspector: t.String(), cause: t.String() })

const HELD_FIELDS = {
  id: t.String(),
  node: t.String({ description: 'Decides about it, and has its body' }),
  nodeName: t.String(),
  holders: t.Array(t.Object({ node: t.String(), nodeName: t.String() }), {
    description: 'The others that have its body',
  }),
  sender: t.String(),
  recipients: TEXTS,
  subject: orNull(t.String()),
  from: orNull(t.String()),
  clientIp: t.String(),
  sizeBytes: t.Number(),
  score: t.Number(),
  rules: TEXTS,
  findings: t.Array(FINDING),
  unknowns: t.Array(UNKNOWN),
  heldAt: TIME,
  expiresAt: TIME,
  pending: t.Array(
    t.Object({
      recipient: t.String(),
      kind: t.String({ description: 'release or delete' }),
      by: t.String(),
      at: TIME,
      node: t.String(),
      nodeName: t.String(),
    }),
    { description: 'Asked for while its node did not answer; done when it does' },
  ),
}
export const HELD = t.Object(HELD_FIELDS)
export const HELD_DETAIL = t.Object({
  ...HELD_FIELDS,
  claims: t.Array(t.Object({ recipient: t.String(), kind: t.String(), by: t.String(), at: TIME })),
  waits: orNull(
    t.Object(
      {
        words: t.String({ description: 'As `waits for mx2`' }),
        doubtSince: orNull(
          t.String({ description: 'It may have been released since then; release with `anyway`' }),
        ),
      },
      { description: 'Its owner cannot decide now' },
    ),
  ),
})

export const PREVIEW = t.Object({
  subject: orNull(t.String()),
  from: orNull(t.String()),
  to: orNull(t.String()),
  date: orNull(t.String()),
  headers: t.Array(t.Object({ name: t.String(), value: t.String() })),
  text: orNull(t.String()),
  html: orNull(t.String()),
  attachments: t.Array(
    t.Object({ name: t.String(), type: t.String(), sizeBytes: t.Number(), sha256: t.String() }),
  ),
  notes: TEXTS,
})

export const QUEUED = t.Object({
  id: t.String(),
  node: t.String({ description: 'Its owner, who delivers it' }),
  nodeName: t.String(),
  term: t.Number({ description: 'Grows with each node that takes it over' }),
  holders: t.Array(
    t.Object({
      node: t.String(),
      nodeName: t.String(),
      state: t.String({
        description: 'kept: has a copy; sent: perhaps; discarding: is to forget it',
      }),
    }),
  ),
  waits: orNull(t.String({ description: 'Why it is not tried although its time has come' })),
  sender: t.String(),
  subject: orNull(t.String()),
  sizeBytes: t.Number(),
  acceptedAt: TIME,
  expiresAt: TIME,
  state: t.String({ description: 'queued, deferred or inDoubt' }),
  recipients: t.Array(
    t.Object({
      address: t.String(),
      state: t.String(),
      attempts: t.Number(),
      nextTry: orNull(TIME),
      lastReply: orNull(t.String()),
    }),
  ),
})

export const TRACED = t.Object({
  id: t.String(),
  node: t.String({ description: 'Where it came in' }),
  nodeName: t.String(),
  at: TIME,
  clientIp: t.String(),
  sender: t.String(),
  recipient: t.String(),
  subject: orNull(t.String()),
  sizeBytes: t.Number(),
  score: t.Number(),
  rules: TEXTS,
  accept: t.String({ description: 'accepted, held, rejected, deferred or refused' }),
  acceptReply: t.String(),
  delivery: orNull(t.String({ description: 'What became of it; null when it ended at the door' })),
  deliveryReply: orNull(t.String()),
  deliveryAt: orNull(TIME),
  reply: orNull(t.String({ description: 'The last reply: of the next hop, else of the door' })),
})

const INSIGHT = t.Object({
  tree: orNull(t.String({ description: 'SHA-256 of the tree of parts' })),
  authentication: t.Array(
    t.Object({
      method: t.String({ description: 'spf, dkim, dmarc, arc or iprev' }),
      result: t.String(),
      about: t.String(),
      evidence: t.String(),
    }),
  ),
  authenticated: TEXTS,
  urls: TEXTS,
  files: t.Array(
    t.Object({
      path: t.String(),
      type: orNull(t.String()),
      sizeBytes: t.Number(),
      sha256: t.String(),
    }),
  ),
})

export const JUDGEMENT = t.Object({
  insight: t.Optional(INSIGHT),
  verdict: t.String(),
  score: t.Number(),
  findings: t.Array(FINDING),
  unknowns: t.Array(UNKNOWN),
  holdFrom: t.Number(),
  rejectFrom: t.Number(),
  author: t.Optional(t.String()),
})

export const MESSAGE = t.Object({
  rows: t.Array(TRACED),
  events: t.Array(
    t.Object({ at: TIME, recipient: orNull(t.String()), what: t.String(), detail: t.String() }),
  ),
  judgement: orNull(JUDGEMENT),
  held: orNull(HELD_DETAIL),
  queue: orNull(QUEUED),
  queuedOn: orNull(
    t.Object(
      { id: t.String(), name: t.String() },
      { description: 'It waits with this other node, as far as its history says' },
    ),
  ),
})

export const DOMAIN = t.Object({
  name: t.String(),
  nextHops: TEXTS,
  recipients: orNull(TEXTS),
  hold: orNull(t.Number()),
  reject: orNull(t.Number()),
  enforce: orNull(t.Boolean()),
})

const VALUE = t.Union([t.Number(), t.Boolean(), t.String(), TEXTS])

export const SETTING = t.Object({
  key: t.String(),
  value: VALUE,
  initial: VALUE,
  changedBy: orNull(t.String()),
  changedAt: orNull(TIME),
})

export const CHANGE = t.Object({
  id: t.String(),
  at: TIME,
  by: t.String(),
  key: t.String(),
  before: orNull(t.String()),
  after: orNull(t.String()),
})

export const OPERATOR = t.Object({
  name: t.String(),
  role: t.String(),
  addedAt: TIME,
  lastSeenAt: orNull(TIME),
})

const COUNT_OR_NULL = orNull(t.Number())
const STATE = t.String({
  description: 'alive, suspect, dead, draining, drained, left or evicted',
})

export const CLUSTER = t.Object({
  clusterId: t.String(),
  nodes: t.Array(
    t.Object({
      id: t.String(),
      name: t.String(),
      here: t.Boolean(),
      state: STATE,
      since: orNull(TIME),
      lagRows: t.Number({ description: 'Rows of this node that it has not acknowledged' }),
      lagMs: t.Number(),
      report: orNull(
        t.Object({
          ready: t.Boolean(),
          queue: t.Number(),
          held: t.Number(),
          diskFreeBytes: t.Number(),
          diskTotalBytes: t.Number(),
          takesCopies: t.Boolean(),
          copies: t.Number({ description: 'Messages that it keeps for others' }),
          alone: t.Number({ description: 'Messages of its own that nobody else has' }),
          inDoubt: t.Number(),
          troubles: TEXTS,
        }),
      ),
      clockOffsetMs: COUNT_OR_NULL,
      version: t.String(),
      peer: TEXTS,
      smtp: t.String(),
      web: t.String(),
      admittedAt: TIME,
    }),
  ),
  links: t.Array(
    t.Object({
      from: t.String(),
      to: t.String(),
      tcp: orNull(t.Boolean({ description: 'As from sees it; null: not known' })),
      udp: orNull(t.Boolean()),
      tcpMs: COUNT_OR_NULL,
      udpMs: COUNT_OR_NULL,
      trouble: orNull(t.String()),
    }),
  ),
  repairs: t.Number({ description: 'Rows that a digest had to repair since the start' }),
  parked: t.Number({ description: 'Rows that wait for their time' }),
  digest: t.String({ description: 'Equal on nodes that have the same state' }),
  clockTrouble: orNull(t.String({ description: 'Why settings are read-only here' })),
  alarms: t.Array(
    t.Object({
      kind: t.String({ description: 'clock, config or duplicate' }),
      message: t.String(),
      advice: t.String(),
    }),
  ),
  events: t.Array(
    t.Object({
      at: TIME,
      node: t.String(),
      name: t.String(),
      what: t.String(),
      detail: t.String(),
    }),
  ),
})

export const INVITATION = t.Object({
  token: t.String(),
  command: t.String({ description: 'The whole line for a fresh machine' }),
  expiresAt: TIME,
})

export const ISSUED = t.Object({
  id: t.String(),
  state: t.String({ description: 'open, used, expired or revoked' }),
  issuer: t.String(),
  issuedAt: TIME,
  by: t.String(),
  expiresAt: TIME,
  usedBy: orNull(t.String()),
})

export const DROPPED_NODE = t.Object({
  node: t.String(),
  name: t.String(),
  taken: t.Number({ description: 'Queued messages of it that are taken over' }),
  held: t.Number({ description: 'Held messages that it owned, as far as is known here' }),
  renew: t.Array(t.String(), { description: 'What it could read and should be renewed' }),
})

export const CONFLICT = t.Object({
  key: t.String({ description: 'As `setting/policy.hold`' }),
  sides: t.Array(
    t.Object({
      id: t.String(),
      value: orNull(t.String({ description: 'JSON; null: removed' })),
      by: t.String(),
      node: t.String(),
      at: TIME,
    }),
    { description: 'The one in force first' },
  ),
})

export const API_TOKEN = t.Object({
  id: t.String(),
  name: t.String(),
  role: t.String(),
  by: t.String(),
  addedAt: TIME,
  expiresAt: orNull(TIME),
})

export const NEW_API_TOKEN = t.Object({
  token: t.String({ description: 'Given once, and kept nowhere' }),
  row: API_TOKEN,
})

export const ENTRY = t.Object({
  list: t.String({ description: 'allow or block' }),
  kind: t.String({ description: 'ip or sender' }),
  value: t.String(),
  note: t.String(),
  by: t.String(),
  addedAt: TIME,
})

export const BAN = t.Object({
  network: t.String({ description: 'An IPv4 address, or an IPv6 /64' }),
  until: TIME,
})

const CHANGED = { by: t.String(), changedAt: TIME }
export const RULE_LOOK = t.Object({
  kind: t.String({ description: 'header, body, link, raw, composite or map' }),
  field: t.Optional(t.String({ description: 'Of header: its name, or * for all' })),
  pattern: t.Optional(t.String({ description: 'Of header, body, link and raw: RE2 syntax' })),
  expression: t.Optional(t.String({ description: 'Of composite: A & (B | !C)' })),
  map: t.Optional(t.String({ description: 'Of map: its name' })),
  of: t.Optional(
    t.String({ description: 'Of map: sender, author, client, link, file or recipient' }),
  ),
})
export const RULE = t.Object({
  name: t.String(),
  score: t.Number(),
  on: t.Boolean(),
  describe: t.String(),
  look: RULE_LOOK,
  ...CHANGED,
})
export const SCORE = t.Object({ rule: t.String(), score: t.Number(), ...CHANGED })
export const MAP = t.Object({ name: t.String(), entries: TEXTS, ...CHANGED })
export const YARA = t.Object({ name: t.String(), source: t.String(), ...CHANGED })
export const RULE_SCORE = t.Object({
  rule: t.String(),
  initial: orNull(t.Number({ description: 'Its usual weight' })),
  score: orNull(t.Number({ description: 'What the operator gave it' })),
  says: t.String(),
  own: t.Boolean({ description: 'A rule of the operator' }),
})

export const SIGNING_KEY = t.Object({
  domain: t.String(),
  selector: t.String(),
  algorithm: t.String({ description: 'rsa or ed25519' }),
  publicKey: t.String(),
  state: t.String({ description: 'waiting (for its record), active or retired' }),
  recordName: t.String(),
  record: t.String({ description: 'The TXT record that the DNS must have' }),
  isHere: t.Boolean({ description: 'This node can sign with it' }),
  trouble: orNull(
    t.String({ description: 'What the DNS has instead of the record of one that signs' }),
  ),
})
