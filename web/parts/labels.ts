/** Names of settings as people say them; the key stands below in mono. */
import { isSettingKey, SETTINGS, type Setting, type SettingValue } from '../../src/config/schema.ts'
import { count, size } from './words.ts'

const LABELS: Readonly<Record<string, string>> = {
  'mail.size': 'Largest mail',
  'mail.recipients': 'Recipients of one mail',
  'mail.hops': 'Hops that make a loop',
  'mail.newlines': 'Mails with broken line ends',
  'limits.exempt': 'Clients without limits',
  'limits.connections': 'Connections of one client',
  'limits.connectionRate': 'New connections of one client',
  'limits.recipientRate': 'Recipients of one client',
  'limits.messageRate': 'Mails of one client',
  'limits.shared': 'Rates of all nodes together',
  'limits.sessions': 'Connections in all',
  'limits.messages': 'Mails in one session',
  'limits.errors': 'Errors in one session',
  'limits.idle': 'Silence that ends a session',
  'limits.dataTime': 'Longest time for one mail',
  'smtp.greetingDelay': 'Wait before the greeting',
  'relay.networks': 'Clients that may send anywhere',
  'greylist.mode': 'Ask to come again',
  'greylist.delay': 'Time until it may come',
  'greylist.retry': 'Time in which it must come',
  'greylist.keep': 'Remember who came',
  'inspect.inspectors': 'Inspectors',
  'inspect.budget': 'Time for all inspectors',
  'dns.servers': 'Name servers',
  'dns.timeout': 'Longest wait for a name',
  'connection.lists': 'Block lists of addresses',
  'connection.reject': 'Refuse a client from weight',
  'connection.names': 'Names of clients',
  'connection.failures': 'Guessed recipients until a ban',
  'connection.ban': 'How long a ban lasts',
  'recipients.ask': 'Ask the next hop for recipients',
  'ldap.directories': 'Directories of recipients',
  'ldap.domains': 'Domains in the directories',
  'sender.enforce': 'Do what DMARC asks for',
  'sender.sealers': 'Trusted forwarders',
  'sender.seal': 'Seal what goes on (ARC)',
  'sender.relays': 'Clients whose SPF is not asked',
  'sender.people': 'Protected people',
  'sender.lookalikes': 'Domains that others imitate',
  'sender.firstContact': 'History before a first contact is said',
  'content.archiveDepth': 'Archives in archives',
  'content.encrypted': 'Encrypted files',
  'content.macros': 'Macros that run by themselves',
  'content.extensions': 'More endings that are held',
  'content.linkLists': 'Block lists of links',
  'content.expandLinks': 'Follow short links',
  'learning.minimum': 'Learnt mails before they count',
  'engines.list': 'Other scanners',
  'engines.timeout': 'Longest wait for a scanner',
  'policy.tag': 'Mark from score',
  'policy.hold': 'Hold from score',
  'policy.reject': 'Reject from score',
  'quarantine.keep': 'Keep held mails',
  'trace.keep': 'Remember what happened',
  'queue.first': 'First wait',
  'queue.longest': 'Longest wait',
  'queue.warn': 'Warn the sender after',
  'queue.expire': 'Give up after',
  'queue.inDoubt': 'Wait when in doubt',
  'deliver.connections': 'Connections to one next hop',
  'deliver.timeout': 'Longest silence of a next hop',
  'cluster.copies': 'Copies before 250',
  'cluster.isolation': 'Two nodes that lost each other',
}

export function settingLabel(key: string): string {
  return LABELS[key] ?? key
}

/** What a choice does and what it costs, where its word alone does not say it. */
const CHOICES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'cluster.copies': {
    prefer:
      'Take the mail also when no other node keeps a copy now. Until one does, it is lost if the disk of this node is lost; the page Alerts says how many there are.',
    require:
      'Answer 451 until another node keeps a copy. No mail has one copy only, but with one node left nothing comes in, and senders try again.',
  },
  'cluster.isolation': {
    deliver:
      'Go on with all mail. Nothing waits, but what both nodes have may arrive twice when they lost each other for more than ten minutes and both live.',
    hold: 'Hold what the other node may have taken over until they see each other again, half an hour at most. Nothing arrives twice, but that mail is late, also when the other node is really dead and only silent.',
  },
}

export function choiceWords(key: string, choice: string): string | null {
  return CHOICES[key]?.[choice] ?? null
}

export function settingOf(key: string): Setting | null {
  return isSettingKey(key) ? SETTINGS[key] : null
}

/** The groups in the order of the schema. */
export function groups(): readonly string[] {
  return [...new Set(Object.values(SETTINGS).map(({ group }) => group))]
}

/** A value as the history and the hints show it: `50 MB`, `8`, `none`, `gtube, eicar`. */
export function valueWords(key: string, value: SettingValue): string {
  if (typeof value === 'boolean') return value ? 'on' : 'off'
  if (typeof value === 'number') {
    const setting = settingOf(key)
    const unit = setting !== null && 'unit' in setting ? setting.unit : ''
    if (unit === 'bytes') return size(value)
    const number = Number.isInteger(value) ? count(value) : String(value)
    return unit === 'score' || unit === '' ? number : `${number} ${unit}`
  }
  if (typeof value === 'string') return value
  return value.length === 0 ? 'none' : value.join(', ')
}
