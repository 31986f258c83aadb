/** `domain add|list|show|remove`: whose mail this gateway takes, and where it goes. */
import { Api, type List, pathOf } from './api.ts'
import { facts, jsonText, table } from './print.ts'
import { dataDirOf, optionOf, type Run, UsageError } from './world.ts'

/** As GET /api/v1/domains gives it. */
type DomainRow = {
  readonly name: string
  readonly nextHops: readonly string[]
  readonly recipients: readonly string[] | null
  readonly hold: number | null
  readonly reject: number | null
  readonly enforce: boolean | null
}

/** Adds or replaces. What is not given keeps its value; a new domain without next hop goes by MX. */
export const addDomain: Run = async (call, world) => {
  const [name = ''] = call.args
  const hops = optionOf(call, '--next-hop')
  const recipients = optionOf(call, '--recipients')
  const body = {
    ...(hops === undefined ? {} : { nextHops: words(hops) }),
    ...(recipients === undefined
      ? {}
      : { recipients: recipients === 'any' ? null : words(recipients) }),
    ...score('hold', optionOf(call, '--hold')),
    ...score('reject', optionOf(call, '--reject')),
    ...enforced(optionOf(call, '--enforce')),
  }
  const api = new Api(dataDirOf(call))
  const row = await api.call<DomainRow>('PUT', pathOf(['domains', name]), body)
  await world.out(call.json ? jsonText(row) : `${row.name}: ${where(row)}\n`)
  return 0
}

export const listDomains: Run = async (call, world) => {
  const { rows } = await new Api(dataDirOf(call)).call<List<DomainRow>>('GET', '/domains')
  if (call.json) await world.out(jsonText(rows))
  else if (rows.length === 0) await world.out('No domains: every recipient is refused.\n')
  else {
    const lines = rows.map((row) => [row.name, where(row), known(row)])
    await world.out(table(world, ['DOMAIN', 'NEXT HOPS', 'RECIPIENTS'], lines))
  }
  return 0
}

export const showDomain: Run = async (call, world) => {
  const [name = ''] = call.args
  const row = await new Api(dataDirOf(call)).call<DomainRow>('GET', pathOf(['domains', name]))
  if (call.json) {
    await world.out(jsonText(row))
    return 0
  }
  const text = facts([
    ['Domain', row.name],
    ['Next hops', where(row)],
    ['Recipients', row.recipients === null ? 'any' : row.recipients.join(', ')],
    ['Hold from', row.hold === null ? 'as the settings' : String(row.hold)],
    ['Reject from', row.reject === null ? 'as the settings' : String(row.reject)],
    ['DMARC', row.enforce === null ? 'as the settings' : row.enforce ? 'enforced' : 'scored'],
  ])
  await world.out(text)
  return 0
}

export const removeDomain: Run = async (call, world) => {
  const [name = ''] = call.args
  await new Api(dataDirOf(call)).call('DELETE', pathOf(['domains', name]))
  await world.out(call.json ? jsonText({ name, removed: true }) : `${name} is removed.\n`)
  return 0
}

function words(list: string): string[] {
  return list
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '')
}

function score(field: 'hold' | 'reject', text: string | undefined): object {
  if (text === undefined) return {}
  if (text === 'default') return { [field]: null }
  if (text.trim() === '' || !Number.isFinite(Number(text))) {
    throw new UsageError(field, `--${field} "${text}" is no number.`, 'Give a score, or `default`.')
  }
  return { [field]: Number(text) }
}

function enforced(text: string | undefined): object {
  if (text === undefined) return {}
  if (text === 'default') return { enforce: null }
  if (text === 'on' || text === 'off') return { enforce: text === 'on' }
  throw new UsageError('enforce', `--enforce "${text}" is no choice.`, 'Give on, off or default.')
}

function where({ nextHops }: DomainRow): string {
  return nextHops.length === 0 ? 'by MX' : nextHops.join(', ')
}

function known({ recipients }: DomainRow): string {
  return recipients === null ? 'any' : `${recipients.length} known`
}
