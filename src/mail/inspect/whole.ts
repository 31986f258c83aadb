/** The inspector processes and the engines beside us, as one. */
import type { InspectionJob, Inspectors } from './contract.ts'
import type { Engines } from './engines/engines.ts'

/** Both look at the same time; the mail waits for the slower one. */
export function withEngines(pool: Inspectors, engines: Pick<Engines, 'ask'>): Inspectors {
  return inspecting(pool, async (job: InspectionJob) => {
    if (job.config.settings['engines.list'].length === 0) return await pool.inspect(job)
    const [own, others] = await Promise.all([pool.inspect(job), engines.ask(job)])
    return {
      ...own,
      findings: [...own.findings, ...others.findings],
      unknowns: [...own.unknowns, ...others.unknowns],
    }
  })
}

/** As `inspectors`, but for how a mail is inspected. */
export function inspecting(inspectors: Inspectors, inspect: Inspectors['inspect']): Inspectors {
  return {
    inspect,
    preview: (body) => inspectors.preview(body),
    sample: (body) => inspectors.sample(body),
    health: () => inspectors.health(),
    close: () => inspectors.close(),
  }
}
