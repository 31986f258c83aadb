/**
 * Every command for people once: help, completion and the manual page follow from this table.
 * `inspector` is not in it: the program starts that one itself.
 */

export type Option = {
  /** With its dashes: `--limit`. */
  readonly name: string
  /** Name of its value in the help; null for a flag. */
  readonly value: string | null
  /** Environment variable that gives it when the command line does not; null for none. */
  readonly env: string | null
  readonly help: string
  /** For tests: in the manual page, not in the help of a command. */
  readonly hidden: boolean
}

export type Argument = {
  readonly name: string
  readonly need: 'one' | 'optional' | 'many'
}

export type Command = {
  /** `queue list`; the words that choose it. */
  readonly path: string
  readonly summary: string
  readonly args: readonly Argument[]
  readonly options: readonly Option[]
}

function option(
  name: string,
  value: string | null,
  help: string,
  env: string | null = null,
  hidden = false,
): Option {
  return { name, value, env, help, hidden }
}

const one = (name: string): Argument => ({ name, need: 'one' })
const optional = (name: string): Argument => ({ name, need: 'optional' })
const many = (name: string): Argument => ({ name, need: 'many' })

function command(
  path: string,
  summary: string,
  args: readonly Argument[] = [],
  options: readonly Option[] = [],
): Command {
  return { path, summary, args, options }
}

/** Every command takes these, before or after its words. */
export const GLOBAL_OPTIONS: readonly Option[] = [
  option('--data', 'DIR', 'Data directory of the node.', 'POSTERN_DATA'),
  option('--json', null, 'Machine-readable output; a refusal is JSON too.'),
  option('--help', null, 'Help for the command.'),
  option('--version', null, 'Print the version.'),
]

const NEXT_HOP = option(
  '--next-hop',
  'URL[,URL]',
  'Where its mail goes, in order of priority: smtp://HOST:PORT or lmtp://HOST:PORT. Without it: by MX.',
)
const PAGE: readonly Option[] = [
  option('--limit', 'N', 'At most N rows, 1 to 1000 (default 1000).'),
  option('--cursor', 'TEXT', 'Go on after this place: the hint that a longer list prints.'),
]
const PASSWORD = option(
  '--password-stdin',
  null,
  'Read the password from standard input, one line.',
)
const NOTE = option('--note', 'TEXT', 'Why it is there.')
const RECIPIENT = option('--recipient', 'ADDRESS', 'Only this recipient, not all of them.')

const SERVE: readonly Option[] = [
  option('--smtp', 'HOST:PORT', 'Where mail comes in (default 0.0.0.0:25).', 'POSTERN_SMTP'),
  option(
    '--web',
    'URL',
    'Web pages and API: [https://]HOST:PORT, or http:// on loopback (default https://0.0.0.0:8443).',
    'POSTERN_WEB',
  ),
  option(
    '--name',
    'NAME',
    'Name of this node for people and for EHLO (default: the hostname).',
    'POSTERN_NAME',
  ),
  option(
    '--peer',
    'HOST:PORT',
    'Where the other nodes reach this one, TCP and UDP (default 0.0.0.0:7946).',
    'POSTERN_PEER',
  ),
  option(
    '--advertise',
    'HOST[:PORT][,…]',
    'Addresses that the other nodes are told (default: those of the interfaces).',
    'POSTERN_ADVERTISE',
  ),
  option(
    '--join',
    'TOKEN|@FILE|-',
    'Join a cluster on the first start. Other users of the machine see a token, not a file.',
    'POSTERN_JOIN',
  ),
  option(
    '--adopt-identity',
    null,
    'This machine takes the place of the one that the data is from.',
  ),
  option('--new-identity', null, 'The data is a copy: set it aside, and begin as a new node.'),
  option(
    '--rebuild-state',
    null,
    'If state.db is damaged or gone, set it aside, and read everything anew from the other nodes.',
  ),
  option(
    '--dev',
    null,
    'Ports that need no privilege: 2525 for mail, 8443 for the web.',
    'POSTERN_DEV',
  ),
  option('--log-level', 'LEVEL', 'debug, info, warn or error (default info).', 'POSTERN_LOG_LEVEL'),
  option(
    '--time-scale',
    'N',
    'For tests: the long times for mail of a dead node pass N times as fast, 1 to 10000.',
    'POSTERN_TIME_SCALE',
    true,
  ),
]

/** The options of `serve` that open a port. */
function listeners(): readonly Option[] {
  return SERVE.filter(({ name }) => ['--smtp', '--web', '--peer'].includes(name))
}

export const COMMANDS: readonly Command[] = [
  command('serve', 'Run a node in the foreground.', [], SERVE),
  command(
    'demo',
    'Run a node, a mail server behind it and sample mail, all on loopback.',
    [],
    [
      option(
        '--smtp',
        'HOST:PORT',
        'Where mail comes in (default 127.0.0.1:2525).',
        'POSTERN_SMTP',
      ),
      option('--web', 'HOST:PORT', 'Web pages (default 127.0.0.1:8080).', 'POSTERN_WEB'),
      option(
        '--sink',
        'HOST:PORT',
        'The mail server behind it (default 127.0.0.1:2526).',
        'POSTERN_SINK',
      ),
      option(
        '--sink-web',
        'HOST:PORT',
        'Page of what reached it (default 127.0.0.1:8081).',
        'POSTERN_SINK_WEB',
      ),
      option(
        '--log-level',
        'LEVEL',
        'debug, info, warn or error (default warn).',
        'POSTERN_LOG_LEVEL',
      ),
    ],
  ),
  command('status', 'What the node is doing, and whether it is ready.'),
  command('doctor', 'What stops this node from working, or would.', [], listeners()),

  command(
    'domain add',
    'Take mail for a domain, or replace its next hops.',
    [one('NAME')],
    [
      NEXT_HOP,
      option('--recipients', 'LIST', 'Known local parts, separated by commas; `any` for all.'),
      option('--hold', 'SCORE', 'Hold from this score; `default` for that of the settings.'),
      option('--reject', 'SCORE', 'Refuse from this score; `default` for that of the settings.'),
      option('--enforce', 'WORD', 'Do what DMARC asks for: on, off, or `default`.'),
    ],
  ),
  command('domain list', 'All domains.'),
  command('domain show', 'One domain.', [one('NAME')]),
  command('domain remove', 'Take no more mail for a domain; the keys that sign its mail go too.', [
    one('NAME'),
  ]),

  command(
    'operator add',
    'Add a person who may sign in to the web pages.',
    [one('NAME')],
    [PASSWORD, option('--role', 'ROLE', 'admin or viewer (default admin).')],
  ),
  command(
    'operator password',
    'Give an operator another password; their sessions end.',
    [one('NAME')],
    [PASSWORD],
  ),
  command('operator list', 'All operators.'),
  command('operator remove', 'Remove an operator.', [one('NAME')]),

  command('config get', 'One setting, or all.', [optional('KEY')]),
  command('config set', 'Change a setting; returns when it is in force.', [
    one('KEY'),
    one('VALUE'),
  ]),
  command('config export', 'All settings and domains as one JSON document.'),
  command('config history', 'Who changed what, newest first.', [], PAGE.slice(0, 1)),
  command('config undo', 'Take one change back.', [one('CHANGE')]),

  command('quarantine list', 'Mail that is held.', [many('QUERY')], PAGE),
  command('quarantine show', 'One held mail, and why.', [one('ID')]),
  command('quarantine source', 'The mail as it was received, to standard output.', [one('ID')]),
  command(
    'quarantine release',
    'Deliver a held mail.',
    [one('ID')],
    [
      RECIPIENT,
      option(
        '--anyway',
        null,
        'Also when it may have been released before: it could arrive twice.',
      ),
    ],
  ),
  command('quarantine delete', 'Delete a held mail.', [one('ID')], [RECIPIENT]),

  command(
    'learn',
    'Teach all nodes that a mail is spam, or ham, or forget that it was learnt.',
    [one('spam|ham|forget'), one('ID|-')],
    [option('--domain', 'NAME', 'Domain of its recipients, when it comes by standard input.')],
  ),

  command(
    'invite',
    'Make a token that lets a new node join, and the line to run there.',
    [],
    [
      option('--ttl', 'TIME', 'How long it is good: 15m, 2h, 1d (default 15m).'),
      option('--uses', 'N', 'How many nodes it lets in, 1 to 100 (default 1).'),
      option('--name', 'NAME', 'What the new node is called (default: as it calls itself).'),
      option(
        '--replace',
        'NODE',
        'It comes in place of this one, which is gone and is removed then.',
      ),
      option('--list', null, 'Show the tokens of all nodes instead.'),
      option('--revoke', 'ID', 'Revoke a token instead.'),
    ],
  ),
  command(
    'join',
    'Join the cluster that the token is from.',
    [one('TOKEN|@FILE|-')],
    [option('--discard', null, 'Give up the settings and operators of this node for theirs.')],
  ),
  command(
    'leave',
    'Leave the cluster for good; its mail goes to the others first.',
    [],
    [option('--abandon', null, 'Leave also with mail that is only here.')],
  ),
  command('remove', 'Remove a dead or stolen node; its keys are never taken again.', [one('NODE')]),
  command(
    'drain',
    'Take no new mail, and hand the queue to the others: this node or another.',
    [optional('NODE')],
    [option('--wait', null, 'Until that is done; says what stays, and ends with 1 if mail does.')],
  ),
  command('undrain', 'Take mail again, on this node or another.', [optional('NODE')]),
  command('conflict list', 'What was set twice while nodes were apart.'),
  command('conflict keep', 'Keep one side of a conflict.', [one('KEY'), one('SIDE')]),

  command(
    'allow add',
    'Allow a client address or network, or a proven sender or @domain.',
    [one('VALUE')],
    [NOTE],
  ),
  command('allow list', 'The allow list.'),
  command('allow remove', 'Take an entry off the allow list.', [one('VALUE')]),
  command('block add', 'Block an address, a network, a sender or @domain.', [one('VALUE')], [NOTE]),
  command('block list', 'The block list.'),
  command('block remove', 'Take an entry off the block list.', [one('VALUE')]),
  command('ban list', 'Networks that are refused because they guess recipients.'),
  command('ban lift', 'Let such a network in again, on all nodes.', [one('NETWORK')]),

  command('dkim list', 'Keys that sign mail of a domain.', [one('DOMAIN')]),
  command(
    'dkim add',
    'Make a key that signs mail of a domain, and print its record.',
    [one('DOMAIN'), one('SELECTOR')],
    [option('--algorithm', 'NAME', 'rsa, which everybody checks (default), or ed25519 beside it.')],
  ),
  command('dkim check', 'Ask the DNS for the record of a key; it signs from then on.', [
    one('DOMAIN'),
    one('SELECTOR'),
  ]),
  command('dkim retire', 'Sign with a key no more.', [one('DOMAIN'), one('SELECTOR')]),
  command('dkim remove', 'Remove a key.', [one('DOMAIN'), one('SELECTOR')]),

  command('rule list', 'Rules of your own.'),
  command(
    'rule set',
    'Add a rule of your own, or replace it.',
    [one('NAME')],
    [
      option('--score', 'SCORE', 'What it weighs, -100 to 100.'),
      option('--header', 'FIELD:PATTERN', 'Found in this header field; * for all.'),
      option('--body', 'PATTERN', 'Found in what a reader sees.'),
      option('--link', 'PATTERN', 'Found in a link.'),
      option('--raw', 'PATTERN', 'Found in the mail as it came.'),
      option('--if', 'EXPRESSION', 'Found when other rules are: A & (B | !C).'),
      option('--map', 'NAME', 'Found when the map has what --of names.'),
      option('--of', 'WHAT', 'sender, author, client, link, file or recipient.'),
      option('--describe', 'TEXT', 'What it says on the page of a mail.'),
      option('--off', null, 'Keep it, and do not run it.'),
    ],
  ),
  command('rule remove', 'Remove a rule of your own.', [one('NAME')]),
  command('score list', 'All rules with what they weigh.', [optional('TEXT')]),
  command('score set', 'Give a rule another weight.', [one('RULE'), one('SCORE')]),
  command('score reset', 'Let a rule weigh what it does by itself.', [one('RULE')]),
  command('map list', 'Lists of addresses, hosts or hashes for rules.'),
  command('map show', 'The entries of a map, a line each.', [one('NAME')]),
  command('map set', 'Replace a map by standard input, an entry a line.', [one('NAME')]),
  command('map remove', 'Remove a map.', [one('NAME')]),
  command('yara list', 'YARA sources that attachments are matched with.'),
  command('yara show', 'One YARA source.', [one('NAME')]),
  command('yara set', 'Add or replace a YARA source by standard input.', [one('NAME')]),
  command('yara remove', 'Remove a YARA source.', [one('NAME')]),

  command(
    'token add',
    'Make an API token for a script; it is shown once.',
    [one('NAME')],
    [
      option('--role', 'ROLE', 'admin or viewer (default viewer).'),
      option('--days', 'N', 'How long it is good (default: for ever).'),
    ],
  ),
  command('token list', 'All API tokens.'),
  command('token remove', 'Revoke an API token.', [one('ID')]),

  command(
    'queue list',
    'Mail that waits for delivery, on all nodes.',
    [],
    [option('--alone', null, 'Only mail of which no other node has a copy.'), ...PAGE],
  ),
  command('queue show', 'One waiting mail with its attempts.', [one('ID')]),
  command('queue retry', 'Deliver one mail, or all, now.', [optional('ID')]),
  command(
    'queue drop',
    'Give up on a waiting mail.',
    [one('ID')],
    [option('--bounce', null, 'Tell the sender.')],
  ),

  command('trace', 'Find mail: where it is, and why.', [many('QUERY')], PAGE),
  command('trace list', 'The same as trace.', [many('QUERY')], PAGE),
  command('trace show', 'The history of one mail.', [one('ID')]),

  command('version', 'Print the version.'),
  command('help', 'This help, or that of a command.', [many('COMMAND')]),
  command('completion', 'Print a completion script for bash, zsh or fish.', [one('SHELL')]),
  command('man', 'Print the manual page.'),
]

/** Exactly this command; null when there is none. */
export function findCommand(path: string): Command | null {
  return COMMANDS.find((candidate) => candidate.path === path) ?? null
}

/** Commands below a first word: `queue` gives `queue list` and the others. */
export function commandsUnder(word: string): readonly Command[] {
  return COMMANDS.filter(({ path }) => path.startsWith(`${word} `))
}
