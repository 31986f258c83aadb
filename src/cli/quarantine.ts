/** `quarantine list|show|source|release|delete`: mail that is held. */
import { Api, type List, pathOf } from './api.ts'
import { hintMore, limitOf } from './page.ts'
import type { Call } from './parse.ts'
import { ago, facts, jsonText, plain, size, table } from './print.ts'
import { dataDirOf, hasFlag, optionOf, type Run, type World } from './world.ts'

/** As GET /api/v1/quarantine gives it. */
type HeldRow = {
  readonly id: string
  readonly sender: string
  readonly recipients: readonly string[]
  readonly subject: string | null
  readonly rules: readonly string[]
  readonly score: number
  readonly heldAt: string
  readonly nodeName: string
  readonly holders: readonly { readonly nodeName: string }[]
  /** Asked for, and done when the node answers that has the mail. */
  readonly pending: readonly {
    readonly recipient: string
    readonly kind: string
    readonly by: string
    readonly at: string
    readonly nodeName: string
  }[]
}

/** As GET /api/v1/quarantine/:id gives it. */
type HeldDetail = HeldRow & {
  readonly from: string | null
  readonly clientIp: string
  readonly sizeBytes: number
  readonly expiresAt: string
  readonly findings: readonly {
    readonly rule: string
    readonly score: number
    readonly evidence: string
  }[]
  readonly unknowns: readonly { readonly inspector: string; readonly cause: string }[]
  /** Its owner cannot decide now. */
  readonly waits: { readonly words: string; readonly doubtSince: string | null } | null
  readonly claims: readonly {
    readonly recipient: string
    readonly kind: string
    readonly by: string
    readonly at: string
  }[]
}

export const listHeld: Run = async (call, world) => {
  const path = pathOf(['quarantine'], {
    q: call.args.length === 0 ? undefined : call.args.join(' '),
    limit: limitOf(call),
    cursor: optionOf(call, '--cursor'),
  })
  const list = await new Api(dataDirOf(call)).call<List<HeldRow>>('GET', path)
  if (call.json) await world.out(jsonText(list.rows))
  else if (list.rows.length === 0) await world.out('Nothing is held.\n')
  else {
    const lines = list.rows.map((row) => [
      row.id,
      `${ago(world, row.heldAt)} ago`,
      row.score.toFixed(1),
      row.sender === '' ? '<>' : row.sender,
      row.recipients.join(', '),
      row.pending.length === 0 ? row.nodeName : `${row.nodeName}, ${waitsFor(row)}`,
      `${row.subject ?? '(no subject)'}  [${row.rules.join(', ')}]`,
    ])
    const head = ['ID', 'HELD', 'SCORE', 'SENDER', 'RECIPIENTS', 'NODE', 'SUBJECT AND RULES']
    await world.out(table(world, head, lines))
  }
  hintMore(world, list)
  return 0
}

export const showHeld: Run = async (call, world) => {
  const [id = ''] = call.args
  const held = await new Api(dataDirOf(call)).call<HeldDetail>('GET', pathOf(['quarantine', id]))
  if (call.json) {
    await world.out(jsonText(held))
    return 0
  }
  const text = facts([
    ['Id', held.id],
    ['Subject', held.subject ?? '(no subject)'],
    ['From', held.from],
    ['Sender', held.sender === '' ? '<>' : held.sender],
    ['Recipients', held.recipients.join(', ')],
    ['Client', held.clientIp],
    ['Size', size(held.sizeBytes)],
    [
      'Held',
      `${ago(world, held.heldAt)} ago, on ${[held, ...held.holders].map(({ nodeName }) => nodeName).join(', ')}`,
    ],
    ['Waits', waitsOf(held)],
    ['Deleted after', held.expiresAt],
    ['Score', held.score.toFixed(1)],
  ])
  const reasons = [
    ...held.findings.map(
      (one) => `  ${one.score.toFixed(1).padStart(6)}  ${one.rule}: ${one.evidence}`,
    ),
    ...held.unknowns.map((one) => `       ?  ${one.inspector} gave no answer: ${one.cause}`),
    ...held.claims.map((one) => `  ${one.recipient}: ${one.kind} by ${one.by} at ${one.at}`),
    ...held.pending.map(
      (one) =>
        `  ${one.recipient}: ${one.kind} asked for by ${one.by} at ${one.at}, waits for ${one.nodeName}`,
    ),
  ]
  await world.out(text + reasons.map((line) => `${plain(line)}\n`).join(''))
  return 0
}

/** The bytes as they stand: for a file or a pipe, not for a terminal. */
export const sourceOfHeld: Run = async (call, world) => {
  const [id = ''] = call.args
  const bytes = await new Api(dataDirOf(call)).bytes(pathOf(['quarantine', id, 'source']))
  if (world.terminal === null) for await (const piece of bytes) await world.out(piece)
  else {
    const text = await new Response(bytes).text()
    await world.out(`${text.split(/\r?\n/).map(plain).join('\n')}\n`)
  }
  return 0
}

export const releaseHeld: Run = (call, world) => decide(call, world, 'release')

export const deleteHeld: Run = (call, world) => decide(call, world, 'delete')

/** Done, or left for the node that has the mail when that one does not answer. */
async function decide(call: Call, world: World, kind: 'release' | 'delete'): Promise<number> {
  const [id = ''] = call.args
  const recipient = optionOf(call, '--recipient')
  const anyway = hasFlag(call, '--anyway')
  const body = {
    ...(recipient === undefined ? {} : { recipient }),
    ...(anyway ? { anyway } : {}),
  }
  const path = pathOf(['quarantine', id, kind])
  const held = await new Api(dataDirOf(call)).call<HeldRow>('POST', path, body)
  if (call.json) await world.out(jsonText(held))
  else if (held.pending.length === 0) await world.out(`${id} is ${kind}d.\n`)
  else {
    const [{ nodeName }] = held.pending as [HeldRow['pending'][0]]
    const waits = `${nodeName} has it and does not answer: the ${kind} of ${id} is done when it does.`
    await world.out(`${plain(waits)}\n`)
  }
  return 0
}

/** What it waits for, and what `release --anyway` would risk. */
function waitsOf({ id, waits }: HeldDetail): string | null {
  if (waits === null || waits.doubtSince === null) return waits?.words ?? null
  return `${waits.words}; it may have been released since ${waits.doubtSince}: "postern quarantine release ${id} --anyway" if it may arrive twice`
}

/** `release waits`: what was asked for. */
function waitsFor({ pending }: HeldRow): string {
  return `${[...new Set(pending.map(({ kind }) => kind))].join(' and ')} waits`
}
