/** What somebody should look at now: what is so, since when, what it means, what to do. */
import { Elysia } from 'elysia'
import type { Alert } from '../../src/admin/contract.ts'
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import { act, mayAct } from '../parts/forms.ts'
import { badge, copyable, empty, type Mark } from '../parts/marks.ts'
import { members } from '../parts/nodes.ts'
import { liveParts, shell } from '../parts/shell.ts'
import { counted, longTime, span, time } from '../parts/words.ts'
import type { Site } from '../site.ts'

export function alertPages(site: Site) {
  const { admin, guard, streams } = site
  return new Elysia()
    .get('/alerts', ({ request }) => {
      const visit = guard.visitOf(request)
      const main = html`<div class="head"><h1>Alerts</h1><p id="how-many">${howMany(admin.alerts())}</p></div>
${card(site, visit)}`
      return shell(site, visit, { title: 'Alerts', at: 'alerts', main, stream: '/events/alerts' })
    })
    .get('/events/alerts', ({ request }) => {
      const visit = guard.visitOf(request)
      return streams.open(
        (listener) => admin.watchCluster(listener),
        () => (guard.isStillIn(visit) ? parts(site, visit) : null),
      )
    })
}

function parts(site: Site, visit: Visit): Html {
  const { admin } = site
  return html`${liveParts(site, admin.cluster(), 'alerts')}
<hx-partial hx-target="#how-many" hx-swap="innerMorph">${howMany(admin.alerts())}</hx-partial>
<hx-partial hx-target="#alerts" hx-swap="outerMorph">${card(site, visit)}</hx-partial>`
}

function howMany(alerts: readonly Alert[]): string {
  if (alerts.length === 0) return 'Nothing to do'
  const bad = alerts.filter(({ level }) => level === 'bad').length
  if (bad === 0) return `${counted(alerts.length, 'thing')} to look at, none of them urgent`
  return `${counted(alerts.length, 'thing')} to look at, ${bad} of them now`
}

function card(site: Site, visit: Visit): Html {
  const alerts = site.admin.alerts()
  const nowMs = site.clock.wallMs()
  if (alerts.length === 0) {
    const nodes = members(site.admin.cluster()).length
    const words =
      nodes < 2
        ? html`Disk, clock, spool and queue of this node are as they should be.`
        : html`All ${nodes} nodes answer, every mail has its copies, and no disk or clock is in trouble.`
    return html`<section class="card" id="alerts" aria-label="Alerts">${empty('All is well', words)}</section>`
  }
  return html`<section class="card" id="alerts" aria-label="Alerts"><ul class="alerts">${alerts.map((alert) => line(alert, visit, nowMs))}</ul></section>`
}

const LEVELS: Readonly<Record<Alert['level'], readonly [mark: Mark, word: string]>> = {
  bad: ['dead', 'Now'],
  warn: ['warn', 'Look'],
}

function line(alert: Alert, visit: Visit, nowMs: number): Html {
  const { level, title, sinceMs, meaning, advice, command } = alert
  const [mark, word] = LEVELS[level]
  const since = `since ${longTime(sinceMs, nowMs)}, ${span(nowMs - sinceMs)}`
  const id = `do-${alert.id.replace(/\W+/g, '-')}`
  return html`<li><div class="head">${badge(mark, word)}<h2>${title}</h2><small>${time(sinceMs, since)}</small></div>
<p>${meaning}</p><p>${advice}</p>${command === null ? '' : copyable(id, command)}${buttons(alert, visit)}</li>`
}

/** What these pages can do about it themselves. */
function buttons({ kind, node }: Alert, visit: Visit): Html | '' {
  const go = (path: string, words: string) =>
    html`<div class="acts"><a class="btn" href="${path}">${words}</a></div>`
  switch (kind) {
    case 'dead':
      if (node === null || !mayAct(visit)) return go('/cluster', 'Cluster')
      return html`<div class="acts"><a class="btn" href="/cluster#n-${node.id}">What happened</a><a class="btn danger" href="/cluster/nodes/${node.id}/remove">Remove ${node.name}</a></div>`
    case 'drained':
      if (node === null || !mayAct(visit)) return go('/cluster', 'Cluster')
      return html`<div class="acts">${act(visit, `/cluster/nodes/${node.id}/undrain`, { words: `Undrain ${node.name}` })}</div>`
    case 'alone':
      return go('/queue?alone=1', 'Show them')
    case 'inDoubt':
      return go('/queue', 'Show the queue')
    case 'signing':
      return go('/settings', 'Domains')
    case 'ban':
      return go('/lists', 'Refused networks')
    case 'pending':
      return go('/quarantine', 'Show the quarantine')
    case 'parked':
    case 'clock':
    case 'notReady':
      return go('/cluster', 'Cluster')
    default:
      return ''
  }
}
