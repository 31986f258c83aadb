/** `queue list|show|retry|drop`: mail that waits for delivery. */
import { Api, type List, pathOf } from './api.ts'
import { hintMore, limitOf } from './page.ts'
import { ago, facts, jsonText, plain, size, span, table } from './print.ts'
import { dataDirOf, hasFlag, optionOf, type Run, type World } from './world.ts'

type QueueRecipient = {
  readonly address: string
  readonly state: string
  readonly attempts: number
  readonly nextTry: string | null
  readonly lastReply: string | null
}

/** As GET /api/v1/queue gives it. */
type QueueRow = {
  readonly id: string
  readonly nodeName: string
  readonly term: number
  readonly holders: readonly { readonly nodeName: string; readonly state: string }[]
  readonly waits: string | null
  readonly sender: string
  readonly subject: string | null
  readonly sizeBytes: number
  readonly acceptedAt: string
  readonly expiresAt: string
  readonly state: string
  readonly recipients: readonly QueueRecipient[]
}

/** Nodes that gave no answer. */
type Silent = { readonly silent?: readonly { readonly name: string }[] }

export const listQueue: Run = async (call, world) => {
  const path = pathOf(['queue'], {
    limit: limitOf(call),
    cursor: optionOf(call, '--cursor'),
    alone: hasFlag(call, '--alone') ? 'true' : undefined,
  })
  const list = await new Api(dataDirOf(call)).call<List<QueueRow> & Silent>('GET', path)
  if (call.json) await world.out(jsonText(list.rows))
  else if (list.rows.length === 0) await world.out('The queue is empty.\n')
  else {
    const lines = list.rows.map((row) => [
      row.id,
      whyOf(row, list) === null ? row.state : 'waits',
      ago(world, row.acceptedAt),
      row.nodeName,
      copiesOf(row),
      row.sender === '' ? '<>' : row.sender,
      row.recipients.map(({ address }) => address).join(', '),
      whyOf(row, list) ??
        row.recipients.find(({ lastReply }) => lastReply !== null)?.lastReply ??
        '-',
    ])
    const head = ['ID', 'STATE', 'AGE', 'NODE', 'COPIES', 'SENDER', 'RECIPIENTS', 'WHY']
    await world.out(table(world, head, lines))
  }
  saySilent(world, list, 'of its queue, only what others have copies of is listed')
  hintMore(world, list)
  return 0
}

/** Why nobody tries it now; null: nothing keeps it. */
function whyOf({ waits, nodeName }: QueueRow, { silent = [] }: Silent): string | null {
  return silent.some(({ name }) => name === nodeName) ? `${nodeName} gives no answer` : waits
}

function saySilent(world: World, { silent = [] }: Silent, what: string): void {
  for (const { name } of silent) world.err(`${plain(name)} gave no answer: ${what}\n`)
}

/** Names of those that have a copy, with `?` when they perhaps have one; `-`: nobody. */
function copiesOf({ holders }: QueueRow): string {
  const names = holders.flatMap(({ nodeName, state }) =>
    state === 'discarding' ? [] : [state === 'kept' ? nodeName : `${nodeName}?`],
  )
  return names.length === 0 ? '-' : names.join(', ')
}

export const showQueued: Run = async (call, world) => {
  const [id = ''] = call.args
  const row = await new Api(dataDirOf(call)).call<QueueRow>('GET', pathOf(['queue', id]))
  await world.out(call.json ? jsonText(row) : describeMail(world, row))
  return 0
}

function describeMail(world: World, row: QueueRow): string {
  const head = facts([
    ['Id', row.id],
    ['State', row.state],
    ['Waits', row.waits],
    [
      'Node',
      row.term < 2 ? row.nodeName : `${row.nodeName}, which took it over (term ${row.term})`,
    ],
    ['Copies', copiesOf(row) === '-' ? 'none' : copiesOf(row)],
    ['Subject', row.subject ?? '(no subject)'],
    ['Sender', row.sender === '' ? '<>' : row.sender],
    ['Size', size(row.sizeBytes)],
    ['Accepted', `${ago(world, row.acceptedAt)} ago`],
    ['Given up at', row.expiresAt],
  ])
  const recipients = row.recipients.map((one) => plain(`  ${describe(world, one)}`))
  return `${head}${recipients.join('\n')}\n`
}

function describe(world: World, one: QueueRecipient): string {
  const waitMs = one.nextTry === null ? null : Date.parse(one.nextTry) - world.clock.wallMs()
  const next = waitMs === null ? '' : waitMs <= 0 ? ', due now' : `, next in ${span(waitMs)}`
  const attempts = `${one.attempts} ${one.attempts === 1 ? 'attempt' : 'attempts'}`
  return `${one.address}: ${one.state}, ${attempts}${next}: ${one.lastReply ?? 'not tried yet'}`
}

/** What waits or is in doubt becomes due now; a delivery in doubt may arrive twice. */
export const retryQueue: Run = async (call, world) => {
  const [id] = call.args
  const path = pathOf(id === undefined ? ['queue', 'retry'] : ['queue', id, 'retry'])
  type Answer = { readonly retried: number } & Silent
  const answer = await new Api(dataDirOf(call)).call<Answer>('POST', path)
  saySilent(world, answer, 'nothing is due there because of this')
  await world.out(call.json ? jsonText(answer) : `${answer.retried} due now.\n`)
  return 0
}

export const dropQueued: Run = async (call, world) => {
  const [id = ''] = call.args
  const bounce = hasFlag(call, '--bounce')
  await new Api(dataDirOf(call)).call('POST', pathOf(['queue', id, 'drop']), { bounce })
  const told = bounce ? 'The sender is told.' : 'Nobody is told.'
  await world.out(call.json ? jsonText({ id, dropped: true }) : `${id} is dropped. ${told}\n`)
  return 0
}
