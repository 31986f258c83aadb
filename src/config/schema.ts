/**
 * Every setting once: kind, default, bounds, help. Forms, validation, API, `config get` and
 * `--help` follow from it. Defaults: the "Start with" column of the field survey.
 */
import { assert, RefusalError } from '../base/errors.ts'
import { RETRY_AGE_MS_MAX } from '../base/limits.ts'
import type { LineForm } from './lines.ts'

export type Setting =
  | {
      readonly kind: 'whole' | 'number'
      readonly initial: number
      readonly min: number
      readonly max: number
      readonly unit: string
      readonly group: string
      readonly help: string
    }
  | {
      readonly kind: 'flag'
      readonly initial: boolean
      readonly group: string
      readonly help: string
    }
  | {
      readonly kind: 'choice'
      readonly initial: string
      readonly choices: readonly string[]
      readonly group: string
      readonly help: string
    }
  /** A list of CIDR networks or addresses. */
  | {
      readonly kind: 'networks'
      readonly initial: readonly string[]
      readonly group: string
      readonly help: string
    }
  /** A list of lines, each written as its form says (config/lines). */
  | {
      readonly kind: 'lines'
      readonly initial: readonly string[]
      readonly form: LineForm
      readonly group: string
      readonly help: string
    }
  /** A list of names from `choices`. */
  | {
      readonly kind: 'names'
      readonly initial: readonly string[]
      readonly choices: readonly string[]
      readonly group: string
      readonly help: string
    }

export type SettingValue = number | boolean | string | readonly string[]

/** Of the inspector processes, in order of cost. What asks the name servers comes last. */
export const INSPECTOR_NAMES = [
  'gtube',
  'headers',
  'impersonation',
  'text',
  'links',
  'bayes',
  'campaign',
  'rules',
  'attachments',
  'eicar',
  'documents',
  'yara',
  'sender',
  'blocklists',
] as const

export const SETTINGS = {
  'mail.size': {
    kind: 'whole',
    initial: 52_428_800,
    min: 65_536,
    max: 1_073_741_824,
    unit: 'bytes',
    group: 'Limits',
    help: 'Largest message. A larger one is refused with 552.',
  },
  'mail.recipients': {
    kind: 'whole',
    initial: 1_000,
    min: 100,
    max: 10_000,
    unit: 'recipients',
    group: 'Limits',
    help: 'Recipients of one message. Further ones get 452 and come again.',
  },
  'mail.hops': {
    kind: 'whole',
    initial: 50,
    min: 10,
    max: 200,
    unit: 'hops',
    group: 'Limits',
    help: 'Received lines from which a message counts as a loop and is refused.',
  },
  'mail.newlines': {
    kind: 'choice',
    initial: 'refuse',
    choices: ['refuse', 'repair'],
    group: 'Limits',
    help: 'What happens to a message with a bare CR, a bare LF or a NUL: refused with 550 5.6.11, or made canonical before anything looks at it.',
  },
  'limits.exempt': {
    kind: 'networks',
    initial: ['127.0.0.0/8', '::1'],
    group: 'Limits',
    help: 'Clients without connection, rate and message limits. It never grants relaying.',
  },
  'limits.connections': {
    kind: 'whole',
    initial: 20,
    min: 1,
    max: 10_000,
    unit: 'connections',
    group: 'Limits',
    help: 'Connections at a time from one client network (/32, /64).',
  },
  'limits.connectionRate': {
    kind: 'whole',
    initial: 60,
    min: 1,
    max: 100_000,
    unit: 'per minute',
    group: 'Limits',
    help: 'New connections a minute from one client network.',
  },
  'limits.recipientRate': {
    kind: 'whole',
    initial: 200,
    min: 1,
    max: 1_000_000,
    unit: 'per 5 min',
    group: 'Limits',
    help: 'Recipients in 5 minutes from one client network.',
  },
  'limits.messageRate': {
    kind: 'whole',
    initial: 200,
    min: 1,
    max: 1_000_000,
    unit: 'per minute',
    group: 'Limits',
    help: 'Messages a minute from one client network.',
  },
  'limits.shared': {
    kind: 'choice',
    initial: 'lenient',
    choices: ['lenient', 'strict'],
    group: 'Limits',
    help: 'Rates hold for all nodes together. Nodes that do not hear each other: each allows all of a rate, or only the share of the members that it sees.',
  },
  'limits.sessions': {
    kind: 'whole',
    initial: 2_000,
    min: 10,
    max: 100_000,
    unit: 'connections',
    group: 'Limits',
    help: 'Connections at a time in all. Beyond it 421.',
  },
  'limits.messages': {
    kind: 'whole',
    initial: 50,
    min: 1,
    max: 100_000,
    unit: 'messages',
    group: 'Limits',
    help: 'Messages in one session.',
  },
  'limits.errors': {
    kind: 'whole',
    initial: 10,
    min: 1,
    max: 1_000,
    unit: 'errors',
    group: 'Limits',
    help: 'Refused commands in one session, then 421.',
  },
  'limits.idle': {
    kind: 'whole',
    initial: 300,
    min: 10,
    max: 3_600,
    unit: 's',
    group: 'Limits',
    help: 'Silence after which a session ends with 421.',
  },
  'limits.dataTime': {
    kind: 'whole',
    initial: 1_800,
    min: 60,
    max: 86_400,
    unit: 's',
    group: 'Limits',
    help: 'Longest time for one message from DATA to its last dot.',
  },
  'smtp.greetingDelay': {
    kind: 'whole',
    initial: 0,
    min: 0,
    max: 10_000,
    unit: 'ms',
    group: 'Limits',
    help: 'Wait before the greeting for clients that were not seen to behave; who talks before it is refused.',
  },
  'relay.networks': {
    kind: 'networks',
    initial: [],
    group: 'Limits',
    help: 'Clients that may send to any domain through this gateway.',
  },
  'greylist.mode': {
    kind: 'choice',
    initial: 'off',
    choices: ['off', 'adaptive', 'on'],
    group: 'Greylist',
    help: 'Asks clients that are not known to come again, with 451, to whichever node. Known is who sent the same recipient mail before, and who had mail accepted lately.',
  },
  'greylist.delay': {
    kind: 'whole',
    initial: 180,
    min: 1,
    max: 86_400,
    unit: 's',
    group: 'Greylist',
    help: 'Time from the first attempt after which a client passes.',
  },
  'greylist.retry': {
    kind: 'number',
    initial: 48,
    min: 0.1,
    max: 720,
    unit: 'hours',
    group: 'Greylist',
    help: 'Time in which it must come again; later it is new.',
  },
  'greylist.keep': {
    kind: 'number',
    initial: 36,
    min: 0.1,
    max: 365,
    unit: 'days',
    group: 'Greylist',
    help: 'Who passed is known this long since its last mail.',
  },
  'inspect.inspectors': {
    kind: 'names',
    initial: INSPECTOR_NAMES,
    choices: INSPECTOR_NAMES,
    group: 'Policy',
    help: 'Which inspectors look at a message.',
  },
  'inspect.budget': {
    kind: 'number',
    initial: 30,
    min: 0.1,
    max: 300,
    unit: 's',
    group: 'Policy',
    help: 'Time for all inspectors. After it the answer is unknown and the sender is asked to try again.',
  },
  'dns.servers': {
    kind: 'lines',
    initial: [],
    form: 'server',
    group: 'Names',
    help: 'Name servers to ask, one a line; none: those of the system.',
  },
  'dns.timeout': {
    kind: 'number',
    initial: 5,
    min: 0.1,
    max: 60,
    unit: 's',
    group: 'Names',
    help: 'Longest wait for one answer, all name servers together. Without one, what asked is unknown. While no server answers anything, nobody waits, and the servers are tried every few seconds.',
  },
  'connection.lists': {
    kind: 'lines',
    initial: [],
    form: 'list',
    group: 'Connection',
    help: 'Block lists of addresses and what their answers weigh. A list that is dead, or says that it is not to be asked from here, is left out for a while and raises an alert.',
  },
  'connection.reject': {
    kind: 'number',
    initial: 8,
    min: 0.1,
    max: 1_000,
    unit: 'score',
    group: 'Connection',
    help: 'Weight of all lists together from which a client is refused before its mail; less is added to the score.',
  },
  'connection.names': {
    kind: 'choice',
    initial: 'score',
    choices: ['off', 'score'],
    group: 'Connection',
    help: 'Whether the name of the client leads back to its address, and what it calls itself, count.',
  },
  'connection.failures': {
    kind: 'whole',
    initial: 35,
    min: 0,
    max: 100_000,
    unit: 'recipients',
    group: 'Connection',
    help: 'Unknown recipients in an hour from which a client network is refused on all nodes; 0 for never. Exempt, allowed and relay clients are not counted.',
  },
  'connection.ban': {
    kind: 'number',
    initial: 60,
    min: 0.1,
    max: 10_080,
    unit: 'minutes',
    group: 'Connection',
    help: 'How long it is refused.',
  },
  'recipients.ask': {
    kind: 'choice',
    initial: 'off',
    choices: ['off', 'on'],
    group: 'Connection',
    help: 'Asks the next hop whether it takes a recipient, before the mail comes, and remembers a yes for a day, a no for 2 hours. A next hop that does not answer refuses nobody.',
  },
  'ldap.directories': {
    kind: 'lines',
    initial: [],
    form: 'directory',
    group: 'Connection',
    help: 'LDAP directories that have the recipients. Who is in none of them is refused; one that does not answer refuses nobody. The password of who asks is the file ldap.password in the data directory of each node, and a private authority the file ldap.pem.',
  },
  'ldap.domains': {
    kind: 'lines',
    initial: [],
    form: 'domain',
    group: 'Connection',
    help: 'Domains whose recipients the directories have; none: all of ours.',
  },
  'sender.enforce': {
    kind: 'choice',
    initial: 'on',
    choices: ['off', 'on'],
    group: 'Sender',
    help: 'What a domain asks for in DMARC, that forged mail is refused or held, is done. Off: it only counts in the score.',
  },
  'sender.relays': {
    kind: 'networks',
    // RFC 1918, RFC 3927, RFC 4193, RFC 4291: no record of a domain tells of those behind them.
    initial: [
      '10.0.0.0/8',
      '127.0.0.0/8',
      '169.254.0.0/16',
      '172.16.0.0/12',
      '192.168.0.0/16',
      '::1',
      'fc00::/7',
      'fe80::/10',
    ],
    group: 'Sender',
    help: 'Clients whose SPF is not asked: private networks, and relays of yours, such as a second MX, which hand on mail of others. Signatures and DMARC count as ever. Take out those that SPF records of your own name. It never grants relaying.',
  },
  'sender.sealers': {
    kind: 'lines',
    initial: [],
    form: 'domain',
    group: 'Sender',
    help: 'Forwarders whose ARC seal is believed: mail that they saw pass is not forged.',
  },
  'sender.seal': {
    kind: 'choice',
    initial: 'off',
    choices: ['off', 'on'],
    group: 'Sender',
    help: 'Mail that comes in gets a seal (ARC) before it goes on: who gets it next, and trusts the domain of its recipient, can see what was proven here. It needs the inspector sender, and a key that signs mail of that domain.',
  },
  'sender.people': {
    kind: 'lines',
    initial: [],
    form: 'person',
    group: 'Sender',
    help: 'People whose names others use to be believed, and their addresses.',
  },
  'sender.lookalikes': {
    kind: 'lines',
    initial: [],
    form: 'domain',
    group: 'Sender',
    help: 'Domains, beside our own, that others imitate: partners, the bank.',
  },
  'sender.firstContact': {
    kind: 'whole',
    initial: 14,
    min: 0,
    max: 365,
    unit: 'days',
    group: 'Sender',
    help: 'Mail of an author from whom nobody of that domain of ours has had mail before is marked: FIRST_CONTACT, and FIRST_CONTACT_DOMAIN when nobody else of its domain wrote either. Who was let in is known a day later, and for as long as trace.keep. Nothing is said until that domain has had mail for this many days, so it must be less than trace.keep; 0 for never.',
  },
  'content.archiveDepth': {
    kind: 'whole',
    initial: 5,
    min: 1,
    max: 10,
    unit: 'archives',
    group: 'Content',
    help: 'Archives in archives that are opened. What lies deeper is held.',
  },
  'content.encrypted': {
    kind: 'choice',
    initial: 'hold',
    choices: ['hold', 'score', 'pass'],
    group: 'Content',
    help: 'What happens to files that nobody can look into: held, scored with 3, or let through with a finding without weight.',
  },
  'content.macros': {
    kind: 'choice',
    initial: 'hold',
    choices: ['hold', 'score', 'pass'],
    group: 'Content',
    help: 'What happens to documents with macros that run by themselves.',
  },
  'content.extensions': {
    kind: 'lines',
    initial: [],
    form: 'extension',
    group: 'Content',
    help: 'Endings of file names that are held, beside those that we know.',
  },
  'content.linkLists': {
    kind: 'lines',
    initial: [],
    form: 'list',
    group: 'Content',
    help: 'Block lists of domains that links are looked up in, and what their answers weigh.',
  },
  'content.expandLinks': {
    kind: 'choice',
    initial: 'off',
    choices: ['off', 'on'],
    group: 'Content',
    help: 'Asks shorteners where their links lead. Never an address inside a private network.',
  },
  'learning.minimum': {
    kind: 'whole',
    initial: 200,
    min: 1,
    max: 100_000,
    unit: 'mails',
    group: 'Learning',
    help: 'Spam and ham, each, that must be learnt before what was learnt counts.',
  },
  'engines.list': {
    kind: 'lines',
    initial: [],
    form: 'engine',
    group: 'Engines',
    help: 'Other scanners that are asked about each mail: clamd, ICAP, Rspamd, SpamAssassin.',
  },
  'engines.timeout': {
    kind: 'number',
    initial: 15,
    min: 0.1,
    max: 300,
    unit: 's',
    group: 'Engines',
    help: 'Longest wait for the answer of an engine.',
  },
  'policy.tag': {
    kind: 'number',
    initial: 6,
    min: 0.1,
    max: 100,
    unit: 'score',
    group: 'Policy',
    help: 'Score from which a message that is delivered says so in its header.',
  },
  'policy.hold': {
    kind: 'number',
    initial: 8,
    min: 0.1,
    max: 100,
    unit: 'score',
    group: 'Policy',
    help: 'Score from which a message is held.',
  },
  'policy.reject': {
    kind: 'number',
    initial: 15,
    min: 0.1,
    max: 1_000,
    unit: 'score',
    group: 'Policy',
    help: 'Score from which a message is refused at the door. Above the hold score.',
  },
  'quarantine.keep': {
    kind: 'number',
    initial: 30,
    min: 0.001,
    max: 365,
    unit: 'days',
    group: 'Quarantine',
    help: 'Held messages are deleted after this time.',
  },
  'trace.keep': {
    kind: 'number',
    initial: 30,
    min: 0.01,
    max: 365,
    unit: 'days',
    group: 'Quarantine',
    help: 'What happened to a message is remembered this long.',
  },
  'queue.first': {
    kind: 'number',
    initial: 300,
    min: 0.05,
    max: 3_600,
    unit: 's',
    group: 'Queue',
    help: 'First wait after a temporary failure; doubled each time.',
  },
  'queue.longest': {
    kind: 'number',
    initial: 4_200,
    min: 0.05,
    max: 86_400,
    unit: 's',
    group: 'Queue',
    help: 'Longest wait between two attempts.',
  },
  'queue.warn': {
    kind: 'number',
    initial: 4,
    min: 0,
    max: 120,
    unit: 'hours',
    group: 'Queue',
    help: 'Delay after which the sender gets a warning; 0 for none.',
  },
  'queue.expire': {
    kind: 'number',
    initial: 120,
    min: 0.0001,
    max: RETRY_AGE_MS_MAX / 3_600_000,
    unit: 'hours',
    group: 'Queue',
    help: 'Age at which a message that cannot be delivered goes back to its sender.',
  },
  'queue.inDoubt': {
    kind: 'number',
    initial: 300,
    min: 0,
    max: 86_400,
    unit: 's',
    group: 'Queue',
    help: 'Wait before a message whose delivery was cut off by a crash is delivered again.',
  },
  'deliver.connections': {
    kind: 'whole',
    initial: 20,
    min: 1,
    max: 1_000,
    unit: 'connections',
    group: 'Queue',
    help: 'Connections at a time to one next hop.',
  },
  'deliver.timeout': {
    kind: 'number',
    initial: 300,
    min: 0.1,
    max: 1_200,
    unit: 's',
    group: 'Queue',
    help: 'Longest silence of a next hop. After the last dot it is twice as long.',
  },
  'cluster.copies': {
    kind: 'choice',
    initial: 'prefer',
    choices: ['prefer', 'require'],
    group: 'Cluster',
    help: 'Before 250 another node keeps a copy. When none can: take the mail all the same, or answer 451.',
  },
  'cluster.isolation': {
    kind: 'choice',
    initial: 'deliver',
    choices: ['deliver', 'hold'],
    group: 'Cluster',
    help: 'In a cluster of two, when each hears nothing of the other: deliver on, and perhaps twice, or hold what both have. Larger clusters always hold.',
  },
} as const satisfies Record<string, Setting>

export type SettingKey = keyof typeof SETTINGS

type ValueOf<S extends Setting> = S extends { kind: 'whole' | 'number' }
  ? number
  : S extends { kind: 'flag' }
    ? boolean
    : S extends { kind: 'choice' }
      ? string
      : readonly string[]

/** All settings with their values: what a Snapshot holds. */
export type Settings = { readonly [Key in SettingKey]: ValueOf<(typeof SETTINGS)[Key]> }

export function isSettingKey(key: string): key is SettingKey {
  return Object.hasOwn(SETTINGS, key)
}

export function initialSettings(): Settings {
  return Object.fromEntries(
    Object.entries(SETTINGS).map(([key, setting]) => [key, setting.initial]),
  ) as unknown as Settings
}

/** Settings that must fit each other. */
export const TOGETHER: readonly (readonly [SettingKey, SettingKey])[] = [
  ['policy.hold', 'policy.reject'],
  ['queue.first', 'queue.longest'],
]

/** Bounds between `changed` and the setting that it must fit. @throws RefusalError that names it */
export function checkTogether(settings: Settings, changed: SettingKey): void {
  switch (changed) {
    case 'policy.hold':
    case 'policy.reject':
      return checkThresholds(settings, changed)
    case 'queue.first':
    case 'queue.longest':
      return checkWaits(settings, changed)
    default:
  }
}

function checkThresholds(settings: Settings, changed: SettingKey): void {
  const { 'policy.hold': hold, 'policy.reject': reject } = settings
  if (hold < reject) return
  throw changed === 'policy.reject'
    ? new RefusalError(
        'invalid',
        changed,
        `Reject must be above hold, which is ${hold}.`,
        `Enter more than ${hold}.`,
      )
    : new RefusalError(
        'invalid',
        changed,
        `Hold must be below reject, which is ${reject}.`,
        `Enter less than ${reject}, or raise reject first.`,
      )
}

function checkWaits(settings: Settings, changed: SettingKey): void {
  const { 'queue.first': first, 'queue.longest': longest } = settings
  if (first <= longest) return
  throw new RefusalError(
    'invalid',
    changed,
    'The first wait must not be longer than the longest wait.',
    `queue.first is ${first} s, queue.longest is ${longest} s.`,
  )
}

assert(SETTINGS['policy.hold'].initial < SETTINGS['policy.reject'].initial, 'hold before reject')
