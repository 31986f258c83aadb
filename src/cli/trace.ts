/** `trace` and `trace show`: where a mail is, and why. */
import { Api, type List, pathOf } from './api.ts'
import { hintMore, limitOf } from './page.ts'
import { ago, jsonText, plain, table } from './print.ts'
import { dataDirOf, optionOf, type Run } from './world.ts'

/** As GET /api/v1/trace gives it: one message and recipient. */
type TraceRow = {
  readonly id: string
  readonly at: string
  readonly sender: string
  readonly recipient: string
  readonly subject: string | null
  readonly accept: string
  readonly delivery: string | null
  readonly reply: string | null
  readonly nodeName: string
}

/** As GET /api/v1/trace/:id gives it. */
type MessageDetail = {
  readonly rows: readonly TraceRow[]
  readonly events: readonly {
    readonly at: string
    readonly recipient: string | null
    readonly what: string
    readonly detail: string
  }[]
}

type Found = List<TraceRow> & { readonly mistakes?: readonly string[] }

export const searchTrace: Run = async (call, world) => {
  const path = pathOf(['trace'], {
    q: call.args.length === 0 ? undefined : call.args.join(' '),
    limit: limitOf(call),
    cursor: optionOf(call, '--cursor'),
  })
  const found = await new Api(dataDirOf(call)).call<Found>('GET', path)
  for (const mistake of found.mistakes ?? []) world.err(`not understood: ${plain(mistake)}\n`)
  if (call.json) await world.out(jsonText(found.rows))
  else if (found.rows.length === 0) await world.out('No mail matches.\n')
  else {
    const lines = found.rows.map((row) => [
      row.id,
      `${ago(world, row.at)} ago`,
      row.delivery === null ? row.accept : `${row.accept}, ${row.delivery}`,
      row.sender === '' ? '<>' : row.sender,
      row.recipient,
      row.subject ?? '(no subject)',
    ])
    const head = ['ID', 'WHEN', 'STATE', 'SENDER', 'RECIPIENT', 'SUBJECT']
    await world.out(table(world, head, lines))
  }
  hintMore(world, found)
  return 0
}

export const showTrace: Run = async (call, world) => {
  const [id = ''] = call.args
  const mail = await new Api(dataDirOf(call)).call<MessageDetail>('GET', pathOf(['trace', id]))
  if (call.json) {
    await world.out(jsonText(mail))
    return 0
  }
  const states = mail.rows.map(
    (row) =>
      `${row.recipient}: ${row.accept}${row.delivery === null ? '' : `, ${row.delivery}`}` +
      `${row.reply === null ? '' : ` (${row.reply})`}`,
  )
  const history = mail.events.map((event) =>
    `${event.at}  ${event.what.padEnd(10)} ${event.recipient ?? ''} ${event.detail}`.trimEnd(),
  )
  const [first] = mail.rows
  const title =
    first === undefined
      ? id
      : `${first.subject ?? '(no subject)'}, from <${first.sender}>, on ${first.nodeName}`
  await world.out([title, ...states, '', ...history, ''].map(plain).join('\n'))
  return 0
}
