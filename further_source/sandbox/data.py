"""Invented executions that look like an insurer's: policies, loss runs, statements of values, submissions.

Everything here is made up: people, companies, carriers, numbers, and the error details of a failed execution. It is
the same at every call, because it comes from seeded generators and no clock.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from random import Random
from typing import Any

from further_source.sandbox.scripts import cell, completed, failed, running, step

POLICY_WORKFLOW = "7b0c5d1e-3f64-4c8a-9a52-1d6e8f20b7c4"
LOSS_RUN_WORKFLOW = "c4e91f7a-58d2-4b06-8e3d-f2a7506c9b18"
VALUES_WORKFLOW = "19d7a3c2-b6e5-4f90-a1c8-70e45d3b2f69"
SUBMISSION_WORKFLOW = "e86f2b40-9c1d-4a37-b5f4-38c0d7a91e52"


@dataclass(frozen=True)
class DemoExecution:
    """An execution to be served.

    Attributes:
        workflow_id: The id of its workflow.
        execution_id: Its own id.
        payload: What it answers in the end.
        after: Seconds it runs; None never ends.
    """

    workflow_id: str
    execution_id: str
    payload: dict[str, Any]
    after: float | None


@dataclass(frozen=True)
class _Document:
    """What a workflow made of one document."""

    metadata: dict[str, Any]
    steps: list[dict[str, Any]]


_Make = Callable[[Random], _Document]


def demo_executions() -> list[DemoExecution]:
    """The 24 executions of the demo.

    22 complete within 8 seconds, one fails, and one never ends. They have what makes such data hard: amounts that
    are text in one document and numbers in the next, ZIP codes that begin with 0, a date that is no date, nulls,
    lists, and some low confidences.
    """
    auto, home = partial(_policy, line="Personal Auto"), partial(_policy, line="Homeowners")
    property_, liability = (
        partial(_policy, line="Commercial Property"),
        partial(_policy, line="General Liability"),
    )
    plan: list[tuple[str, _Make, float]] = [
        (POLICY_WORKFLOW, auto, 0.0),
        (POLICY_WORKFLOW, home, 0.0),
        (LOSS_RUN_WORKFLOW, partial(_loss_run, line="Workers Compensation", claims=42), 2.5),
        (VALUES_WORKFLOW, partial(_statement_of_values, locations=12), 3.0),
        (POLICY_WORKFLOW, partial(property_, money=_dollars), 1.5),
        (POLICY_WORKFLOW, partial(liability, due="upon receipt"), 1.0),
        (LOSS_RUN_WORKFLOW, partial(_loss_run, line="Commercial Auto", claims=27), 4.0),
        (SUBMISSION_WORKFLOW, partial(_submission, vehicles=14), 7.5),
        (POLICY_WORKFLOW, partial(auto, effective="tomorrow"), 2.0),
        (VALUES_WORKFLOW, partial(_statement_of_values, locations=8, money=_dollars), 2.0),
        (LOSS_RUN_WORKFLOW, partial(_loss_run, line="General Liability", claims=18, money=_dollars), 3.5),
        (POLICY_WORKFLOW, partial(home, read_date=_us_date), 0.5),
        (LOSS_RUN_WORKFLOW, partial(_loss_run, line="Commercial Property", claims=11), 0.0),
        (VALUES_WORKFLOW, partial(_statement_of_values, locations=24, places=_NEW_ENGLAND), 5.5),
        (POLICY_WORKFLOW, liability, 3.0),
        (LOSS_RUN_WORKFLOW, partial(_loss_run, line="Workers Compensation", claims=64), 6.0),
        (POLICY_WORKFLOW, property_, 2.5),
        (VALUES_WORKFLOW, partial(_statement_of_values, locations=9, places=_TEXAS, read_zip=int), 4.5),
        (LOSS_RUN_WORKFLOW, partial(_loss_run, line="Commercial Auto", claims=33, read_date=_us_date), 5.0),
        (POLICY_WORKFLOW, auto, 1.0),
        (SUBMISSION_WORKFLOW, partial(_submission, vehicles=6, money=_dollars), 6.5),
        (VALUES_WORKFLOW, partial(_statement_of_values, locations=15), 1.5),
    ]
    executions = [
        _execution("demo", workflow_id, number, make, after)
        for number, (workflow_id, make, after) in enumerate(plan, start=1)
    ]
    executions.insert(9, _failed_execution())
    executions.insert(16, _endless_execution())
    return executions


def create_execution(workflow_id: str, number: int) -> DemoExecution:
    """The execution that the `number`-th POST to a workflow creates; it completes within 1 to 4 seconds.

    Each workflow of the demo makes its own kind of document. Any other workflow makes always the same one of these.
    """
    loss_run = partial(_loss_run, line="General Liability", claims=20)
    makes: dict[str, _Make] = {
        POLICY_WORKFLOW: partial(_policy, line="Personal Auto"),
        LOSS_RUN_WORKFLOW: loss_run,
        VALUES_WORKFLOW: partial(_statement_of_values, locations=10),
        SUBMISSION_WORKFLOW: partial(_submission, vehicles=8),
    }
    make = makes.get(workflow_id) or _seeded(workflow_id).choice(list(makes.values()))
    after = round(_seeded(f"after/{workflow_id}/{number}").uniform(1, 4), 1)
    return _execution("created", workflow_id, number, make, after)


def _execution(origin: str, workflow_id: str, number: int, make: _Make, after: float) -> DemoExecution:
    rng = _seeded(f"{origin}/{workflow_id}/{number}")
    execution_id = _uuid(rng)
    document = make(rng)
    payload = completed(workflow_id, execution_id, document.steps, metadata=document.metadata)
    return DemoExecution(workflow_id, execution_id, payload, after)


def _failed_execution() -> DemoExecution:
    execution_id = _uuid(_seeded("demo/failed"))
    payload = failed(
        LOSS_RUN_WORKFLOW,
        execution_id,
        metadata=_metadata("LR-2025-0391", "tidewick_loss_runs_2019-2024.pdf", 0),
        error={"code": "document_unreadable", "message": "The PDF is password protected", "page": None},
    )
    return DemoExecution(LOSS_RUN_WORKFLOW, execution_id, payload, 3.0)


def _endless_execution() -> DemoExecution:
    execution_id = _uuid(_seeded("demo/endless"))
    metadata = _metadata("SUB-2025-0088", "redwater_submission_packet.zip", 412, priority="low")
    return DemoExecution(
        SUBMISSION_WORKFLOW, execution_id, running(SUBMISSION_WORKFLOW, execution_id, metadata=metadata), None
    )


def _metadata(external_id: str, source_file: str, page_count: int, **more: Any) -> dict[str, Any]:
    return {"external_id": external_id, "source_file": source_file, "page_count": page_count, **more}


# How documents write what they say. ------------------------------------------------------------------------

_ReadMoney = Callable[[float], Any]
_ReadDate = Callable[[date], str]


def _number(amount: float) -> float:
    return amount


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount % 1 else f"${amount:,.0f}"


def _iso_date(day: date) -> str:
    return day.isoformat()


def _us_date(day: date) -> str:
    return f"{day:%m/%d/%Y}"


def _row(rng: Random, values: Mapping[str, Any], unsure: Sequence[str] = ()) -> dict[str, Any]:
    """A row of cells. Those of the fields in `unsure`, and nulls, mostly have a low confidence."""
    return {
        field: cell(value, _confidence(rng, unsure=field in unsure or value is None)) for field, value in values.items()
    }


def _confidence(rng: Random, *, unsure: bool) -> float:
    share = rng.random()
    if unsure and share < 0.7:
        return round(rng.uniform(0.31, 0.69), 2)
    if share < 0.9:
        return round(rng.uniform(0.92, 0.99), 2)
    if share < 0.97:
        return round(rng.uniform(0.7, 0.91), 2)
    return round(rng.uniform(0.34, 0.69), 2)


def _seeded(seed: str) -> Random:
    return Random(seed)  # noqa: S311  invented data, nothing to protect


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


# Who and where. --------------------------------------------------------------------------------------------

_PEOPLE = (
    "Joaquín Peñalver", "Margaret A. Thorne", "Devonte Ruffin", "Siobhán O'Dell", "Priyanka Venkataraman",
    "Walter J. Kosciuk Jr.", "Mei-Ling Chu", "Andreas Grünwald", "Tamika Brightwater",
    "Noah & Elise Fontenot", "Hector Villaseñor", "Ruth Abernathy-Cole", "Bogdan Wieczorek",
    "Latoya Simmonds", "Kenji Morinaga",
)  # fmt: skip
_COMPANIES = (
    ("Alder & Finch Bakery LLC", "Commercial bakery", "311812"),
    ("Quarry Lane Logistics, Inc.", "General freight trucking", "484110"),
    ("Tidewick Marine Supply Co.", "Marine hardware wholesale", "423860"),
    ("Marrow Creek Senior Living LP", "Assisted living facility", "623312"),
    ("Pinehollow Property Management LLC", "Residential property management", "531311"),
    ("Three Larks Hospitality Group", "Full-service restaurants", "722511"),
    ("Kestrel Mill Fabrication, Inc.", "Structural metal fabrication", "332312"),
    ("Saltgrass Landscape Contractors", "Landscaping services", "561730"),
    ("Bright Anchor Child Care Centers", "Child day care", "624410"),
    ("Old Foundry Brewing Company, LLC", "Brewery with taproom", "312120"),
    ("Copperline Electrical Services, Inc.", "Electrical contractor", "238210"),
    ("Redwater Cold Storage, Inc.", "Refrigerated warehousing", "493120"),
)
_CARRIERS = (
    ("Harborstone Mutual Insurance Company", "HSM"),
    ("Prairie Lantern Casualty Company", "PLC"),
    ("Northmere Indemnity Company", "NMI"),
    ("Cedar Gap Insurance Exchange", "CGX"),
    ("Blue Ledger Specialty Insurance Company", "BLS"),
)
_BROKERS = ("Wexcombe Risk Partners", "Larkspur & Dunn Insurance Services", "Tallgrass Brokerage Group")
_ADDITIONAL_INSUREDS = (
    "City of Harrow Falls",
    "Dovetail Realty Trust",
    "Lantern Row Associates LLC",
    "Summit Ferry General Contractors, Inc.",
    "Vale & Orchard Shopping Center LP",
)
_SURNAMES = (
    "Abreu", "Bianchi", "Castellanos", "Dziedzic", "Ekwueme", "Fairweather", "Gutiérrez", "Hollis", "Ibarra",
    "Jankowski", "Kaur", "Lindqvist", "McAllister", "Nguyen", "Ortega", "Pruitt", "Reyes", "Sandoval",
    "Takahashi", "Underhill", "Vasquez", "Whitlock", "Yoon", "Zielinski",
)  # fmt: skip
_GIVEN_NAMES = (
    "Angela", "Brandon", "Carlos", "Denise", "Eric", "Fatima", "Gloria", "Hassan", "Ingrid", "Jamal", "Karen",
    "Luis", "Monique", "Nathan", "Olga", "Pedro", "Rosa", "Sean", "Teresa", "Victor",
)  # fmt: skip
_BANKS = (
    "Fallow River Savings Bank ISAOA",
    "Granite Notch Credit Union",
    "Meridian Oak Bank, N.A. ISAOA/ATIMA",
)
_STREETS = (
    "Massachusetts Ave", "Mill Street", "Harbor Road", "N Main St", "Old Post Road", "Commerce Pkwy",
    "Industrial Dr", "Elm Street", "Riverside Blvd", "County Road 12", "Lakeview Ter", "Depot Street",
)  # fmt: skip
_Place = tuple[str, str, str]
_NEW_ENGLAND: tuple[_Place, ...] = (
    ("Cambridge", "MA", "02139"), ("Worcester", "MA", "01608"), ("Providence", "RI", "02903"),
    ("Hartford", "CT", "06103"), ("Portland", "ME", "04101"), ("Manchester", "NH", "03101"),
)  # fmt: skip
_TEXAS: tuple[_Place, ...] = (
    ("Austin", "TX", "78701"), ("Round Rock", "TX", "78664"), ("San Antonio", "TX", "78205"),
    ("Fort Worth", "TX", "76102"),
)  # fmt: skip
_PLACES: tuple[_Place, ...] = (
    *_NEW_ENGLAND, *_TEXAS,
    ("Newark", "NJ", "07102"), ("Columbus", "OH", "43215"), ("Des Moines", "IA", "50309"),
    ("Tampa", "FL", "33602"), ("Sacramento", "CA", "95814"), ("Denver", "CO", "80202"),
    ("Charlotte", "NC", "28202"), ("Nashville", "TN", "37203"), ("Boise", "ID", "83702"),
)  # fmt: skip


def _street(rng: Random) -> str:
    return f"{rng.randint(3, 4899)} {rng.choice(_STREETS)}"


def _claimant(rng: Random) -> str:
    return f"{rng.choice(_SURNAMES)}, {rng.choice(_GIVEN_NAMES)}"


def _slug(name: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()
    return "_".join(words[:2])


# Policies. -------------------------------------------------------------------------------------------------

_LINE_CODES = {
    "Personal Auto": "PA",
    "Homeowners": "HO",
    "Commercial Property": "CP",
    "General Liability": "GL",
    "Workers Compensation": "WC",
    "Commercial Auto": "CA",
}


def _policy_number(rng: Random, carrier_code: str, line: str) -> str:
    return f"{carrier_code}-{_LINE_CODES[line]}-{rng.randint(1_000_000, 9_999_999)}"


def _policy(
    rng: Random,
    *,
    line: str,
    money: _ReadMoney = _number,
    read_date: _ReadDate = _iso_date,
    effective: str | None = None,
    due: str | None = None,
) -> _Document:
    """A declarations page. `effective` and `due`, if given, are printed in place of these dates."""
    personal = line in ("Personal Auto", "Homeowners")
    insured = rng.choice(_PEOPLE) if personal else rng.choice(_COMPANIES)[0]
    carrier, carrier_code = rng.choice(_CARRIERS)
    city, state, zip_code = rng.choice(_PLACES)
    start = date(2025, 1, 1) + timedelta(days=rng.randint(0, 330))
    coverages = _COVERAGES[line](rng)
    premium = sum(premium for *_, premium in coverages if isinstance(premium, int))
    policy = {
        "policy_number": _policy_number(rng, carrier_code, line),
        "line_of_business": line,
        "carrier": carrier,
        "insured_name": insured,
        "mailing_address": _street(rng),
        "city": city,
        "state": state,
        "zip_code": zip_code,
        "effective_date": effective or read_date(start),
        # A policy year ends on the day it began; none of these begins on a 29th of February.
        "expiration_date": read_date(start.replace(year=start.year + 1)),
        "total_premium": money(premium),
        "premium_due_date": due or read_date(start + timedelta(days=20)),
        "is_renewal": rng.random() < 0.7,
        "mortgagee": _mortgagee(rng) if line in ("Homeowners", "Commercial Property") else None,
        "additional_insureds": [] if personal else rng.sample(_ADDITIONAL_INSUREDS, rng.randint(1, 3)),
        "prior_policy_number": _policy_number(rng, carrier_code, line) if rng.random() < 0.5 else None,
    }
    rows = [
        {
            "coverage": name,
            "limit": money(limit) if isinstance(limit, int) else limit,
            "deductible": money(deductible) if isinstance(deductible, int) else deductible,
            "premium": money(price) if isinstance(price, int) else price,
        }
        for name, limit, deductible, price in coverages
    ]
    return _Document(
        _metadata(
            f"POL-2025-{rng.randint(100, 9999):04}",
            f"{_slug(insured)}_{_LINE_CODES[line].lower()}_dec.pdf",
            rng.randint(2, 9),
            uploaded_by="policy-checking",
            tags=[_LINE_CODES[line], state],
        ),
        [
            step("Extract Policy Details", [_row(rng, policy, unsure=("prior_policy_number",))]),
            step("Extract Coverages", [_row(rng, row) for row in rows]),
        ],
    )


def _mortgagee(rng: Random) -> dict[str, Any]:
    city, state, zip_code = rng.choice(_PLACES)
    return {
        "name": rng.choice(_BANKS),
        "address": f"{_street(rng)}, {city}, {state} {zip_code}",
        "loan_number": f"{rng.randint(0, 9_999_999_999):010}",
    }


_Coverage = tuple[str, int | str | None, int | str | None, int | str | None]
"""Name, limit, deductible, premium; text as a declarations page prints it."""


def _auto_coverages(rng: Random) -> list[_Coverage]:
    return [
        ("Bodily Injury Liability", "250,000/500,000", None, rng.randint(310, 520)),
        ("Property Damage Liability", 100_000, None, rng.randint(180, 290)),
        ("Uninsured Motorist", "250,000/500,000", None, rng.randint(40, 95)),
        ("Medical Payments", 5_000, None, rng.randint(18, 40)),
        ("Comprehensive", "Actual cash value", rng.choice((250, 500)), rng.randint(90, 210)),
        ("Collision", "Actual cash value", rng.choice((500, 1_000)), rng.randint(260, 540)),
        ("Roadside Assistance", "Included", None, "Included"),
    ]


def _home_coverages(rng: Random) -> list[_Coverage]:
    dwelling = rng.randint(280, 940) * 1_000
    deductible = rng.choice((1_000, 2_500))
    return [
        ("A - Dwelling", dwelling, deductible, dwelling * rng.randint(22, 31) // 10_000),
        ("B - Other Structures", dwelling // 10, deductible, "Included"),
        ("C - Personal Property", dwelling // 2, deductible, "Included"),
        ("D - Loss of Use", dwelling // 5, None, "Included"),
        ("E - Personal Liability", 300_000, None, rng.randint(20, 45)),
        ("F - Medical Payments to Others", 5_000, None, "Included"),
        ("Wind/Hail", None, "2% of Coverage A", "Included"),
    ]


def _property_coverages(rng: Random) -> list[_Coverage]:
    building = rng.randint(12, 80) * 125_000
    contents, income = building * 3 // 10, building // 4
    return [
        ("Building", building, 10_000, building * rng.randint(28, 46) // 10_000),
        ("Business Personal Property", contents, 10_000, contents * rng.randint(30, 48) // 10_000),
        ("Business Income and Extra Expense", income, "72 hours", income * rng.randint(15, 25) // 10_000),
        ("Equipment Breakdown", building + contents, 5_000, rng.randint(380, 1_150)),
        ("Ordinance or Law", "Included in Building", None, "Included"),
        ("Flood", "Excluded", None, None),
    ]


def _liability_coverages(rng: Random) -> list[_Coverage]:
    return [
        ("Each Occurrence", 1_000_000, 2_500, rng.randint(3_200, 11_800)),
        ("General Aggregate", 2_000_000, None, "Included"),
        ("Products-Completed Operations Aggregate", 2_000_000, None, rng.randint(900, 4_200)),
        ("Personal and Advertising Injury", 1_000_000, None, "Included"),
        ("Damage to Premises Rented to You", 300_000, None, "Included"),
        ("Medical Expense", 10_000, None, rng.randint(75, 260)),
    ]


_COVERAGES: dict[str, Callable[[Random], list[_Coverage]]] = {
    "Personal Auto": _auto_coverages,
    "Homeowners": _home_coverages,
    "Commercial Property": _property_coverages,
    "General Liability": _liability_coverages,
}


# Loss runs. ------------------------------------------------------------------------------------------------

_LOSSES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "Workers Compensation": (
        ("Strain", "Lower back strain while lifting a pallet jack", 18_000),
        ("Slip or fall", "Slipped on a wet dock plate, fractured wrist", 24_000),
        ("Cut", "Laceration of left hand on an unguarded slicer", 2_600),
        ("Burn", "Second-degree burn from fryer oil", 7_800),
        ("Repetitive motion", "Carpal tunnel, right hand", 21_000),
        ("Struck by object", "Struck on shoulder by falling carton", 5_200),
    ),
    "Commercial Auto": (
        ("Rear-end", "IV struck OV in rear at traffic light", 11_500),
        ("Backing", "Backed into a bollard at customer's dock", 2_900),
        ("Lane change", "OV side-swiped by insured tractor on interstate", 8_600),
        ("Windshield", "Rock chip, windshield replaced", 640),
        ("Theft", "Catalytic converter stolen from yard overnight", 2_700),
        ("Animal", "Deer strike, front end damage", 5_900),
    ),
    "General Liability": (
        ("Slip or fall", "Customer fell on icy walkway", 16_500),
        ("Products", "Alleged foreign object in baked goods", 3_100),
        ("Property damage", "Irrigation line broken, tenant's basement flooded", 12_800),
        ("Bodily injury", "Child's finger caught in closing door", 9_400),
        ("Advertising injury", "Alleged use of a competitor's mark", 38_000),
    ),
    "Commercial Property": (
        ("Water damage", "Frozen sprinkler pipe burst on 2nd floor", 64_000),
        ("Fire", "Electrical fire in mechanical room", 128_000),
        ("Wind", "Roof membrane lifted over loading bay", 43_000),
        ("Hail", "Hail damage to rooftop units", 27_000),
        ("Theft", "Copper removed from vacant suite", 14_500),
    ),
}
"""Cause, description and usual cost in dollars, by line of business."""


def _loss_run(
    rng: Random,
    *,
    line: str,
    claims: int,
    money: _ReadMoney = _number,
    read_date: _ReadDate = _iso_date,
) -> _Document:
    insured = rng.choice(_COMPANIES)[0]
    carrier, carrier_code = rng.choice(_CARRIERS)
    policy_number = _policy_number(rng, carrier_code, line)
    first_day, valued = date(2020, 7, 1), date(2025, 5, 31) + timedelta(days=rng.randint(0, 120))
    rows, paid_in_all, reserved_in_all = [], 0, 0
    for claim in sorted(rng.randint(0, (valued - first_day).days - 15) for _ in range(claims)):
        lost = first_day + timedelta(days=claim)
        reported = min(lost + timedelta(days=int(rng.expovariate(1 / 6))), valued)
        cause, description, usual_cost = rng.choice(_LOSSES[line])
        status, paid, reserved = _claim_amounts(rng, usual_cost, days_old=(valued - lost).days)
        paid_in_all, reserved_in_all = paid_in_all + paid, reserved_in_all + reserved
        rows.append(
            {
                "claim_number": f"{carrier_code}{lost:%y}-{rng.randint(10_000, 99_999)}",
                "policy_year": f"{_policy_year(lost)}-{_policy_year(lost) + 1}",
                "date_of_loss": read_date(lost),
                "date_reported": read_date(reported),
                "claimant": _claimant(rng) if rng.random() < 0.9 and line != "Commercial Property" else None,
                "cause_of_loss": cause,
                "description": description,
                "status": status,
                "paid": money(paid / 100),
                "reserved": money(reserved / 100),
                "incurred": money((paid + reserved) / 100),
                "litigation": rng.random() < 0.08,
            }
        )
    summary = {
        "insured_name": insured,
        "carrier": carrier,
        "policy_number": policy_number,
        "line_of_business": line,
        "valuation_date": read_date(valued),
        "claim_count": claims,
        "open_claim_count": sum(row["status"] in ("Open", "Reopened") for row in rows),
        "total_paid": money(paid_in_all / 100),
        "total_reserved": money(reserved_in_all / 100),
        "total_incurred": money((paid_in_all + reserved_in_all) / 100),
    }
    return _Document(
        _metadata(
            f"LR-2025-{rng.randint(100, 9999):04}",
            f"{_slug(insured)}_{_LINE_CODES[line].lower()}_loss_run.pdf",
            1 + claims // 12,
            broker=rng.choice(_BROKERS),
        ),
        [
            step("Extract Loss Run Summary", [_row(rng, summary)]),
            step("Extract Claims", [_row(rng, row, unsure=("claimant",)) for row in rows]),
        ],
    )


def _policy_year(day: date) -> int:
    return day.year if day.month >= 7 else day.year - 1


def _claim_amounts(rng: Random, usual_cost: int, *, days_old: int) -> tuple[str, int, int]:
    """Status, paid and reserved; amounts in cents, so that their sum is exact."""
    paid = int(usual_cost * rng.lognormvariate(0, 0.55) * 100)
    if rng.random() < min(0.95, days_old / 800):
        return ("Closed Without Payment", 0, 0) if rng.random() < 0.15 else ("Closed", paid, 0)
    # Adjusters reserve in round sums.
    reserved = max(1, round(usual_cost * rng.lognormvariate(0, 0.4) / 500)) * 50_000
    status = "Reopened" if rng.random() < 0.12 else "Open"
    return status, 0 if rng.random() < 0.25 else paid, reserved


# Statements of values. -------------------------------------------------------------------------------------

_CONSTRUCTIONS = (
    "Frame", "Joisted Masonry", "Non-Combustible", "Masonry Non-Combustible", "Modified Fire Resistive",
    "Fire Resistive",
)  # fmt: skip
_OCCUPANCIES = ("Warehouse", "Office", "Retail", "Apartments", "Light manufacturing", "Restaurant", "Vacant")


def _statement_of_values(
    rng: Random,
    *,
    locations: int,
    money: _ReadMoney = _number,
    places: Sequence[_Place] = _PLACES,
    read_zip: Callable[[str], Any] = str,
) -> _Document:
    """A schedule of locations. `read_zip=int` reads ZIP codes as numbers, as spreadsheets do."""
    insured = rng.choice(_COMPANIES)[0]
    rows = []
    for number in range(1, locations + 1):
        city, state, zip_code = rng.choice(places)
        area = rng.randint(12, 940) * 100
        building = area * rng.randint(95, 240) // 1_000 * 1_000
        contents = building * rng.randint(10, 60) // 100_000 * 1_000
        income = building * rng.randint(5, 35) // 100_000 * 1_000
        rows.append(
            {
                "location_number": number,
                "address": _street(rng),
                "city": city,
                "state": state,
                "zip_code": read_zip(zip_code),
                "occupancy": rng.choice(_OCCUPANCIES),
                "construction": rng.choice(_CONSTRUCTIONS),
                "year_built": rng.randint(1898, 2021) if rng.random() < 0.94 else None,
                "stories": rng.choice((1, 1, 1, 2, 2, 3, 5)),
                "square_feet": area,
                "sprinklered": rng.random() < 0.55,
                "building_value": money(building),
                "contents_value": money(contents),
                "business_income": money(income),
                "total_insured_value": money(building + contents + income),
            }
        )
    return _Document(
        _metadata(
            f"SOV-2025-{rng.randint(100, 9999):04}",
            f"{_slug(insured)}_sov.xlsx",
            1,
            broker=rng.choice(_BROKERS),
            account=insured,
        ),
        [step("Extract Statement of Values", [_row(rng, row, unsure=("construction",)) for row in rows])],
    )


# Submissions. ----------------------------------------------------------------------------------------------

_TRUCKS = (
    ("Ford", "F-250", "1FT", 10_000, 58_000),
    ("Freightliner", "Cascadia", "3AK", 52_000, 168_000),
    ("Isuzu", "NPR-HD", "JAL", 14_500, 71_000),
    ("Ram", "ProMaster 2500", "3C6", 8_900, 51_000),
    ("Chevrolet", "Express 3500", "1GC", 9_900, 46_000),
)
_VIN_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"


def _submission(rng: Random, *, vehicles: int, money: _ReadMoney = _number) -> _Document:
    insured, operations, naics = rng.choice(_COMPANIES)
    city, state, zip_code = rng.choice(_PLACES)
    contact = rng.choice(_PEOPLE)
    submission = {
        "named_insured": insured,
        "dba": None,
        "fein": f"{rng.randint(10, 98)}-{rng.randint(1_000_000, 9_999_999)}",
        "naics_code": naics,
        "operations": operations,
        "mailing_address": f"{_street(rng)}, {city}, {state} {zip_code}",
        "contact": {"name": contact, "phone": f"({rng.randint(201, 989)}) 555-01{rng.randint(10, 99)}"},
        "broker": rng.choice(_BROKERS),
        "lines_requested": ["Commercial Auto", "General Liability", "Umbrella"],
        "effective_date": _iso_date(date(2025, 10, 1) + timedelta(days=rng.randint(0, 90))),
        "need_by": "ASAP",
        "annual_revenue": money(rng.randint(18, 410) * 100_000),
        "employee_count": rng.randint(9, 240),
        "target_premium": money(rng.randint(40, 190) * 1_000),
        "prior_bankruptcy": False,
    }
    return _Document(
        _metadata(
            f"SUB-2025-{rng.randint(100, 9999):04}",
            f"{_slug(insured)}_acord_125_127.pdf",
            rng.randint(18, 60),
            priority="high",
            received_from="submissions mailbox",
        ),
        [
            step("Extract Submission", [_row(rng, submission, unsure=("target_premium",))]),
            step("Extract Loss History", [_row(rng, row) for row in _loss_history(rng, money)]),
            step(
                "Extract Schedule of Vehicles",
                [_row(rng, row, unsure=("vin",)) for row in _vehicles(rng, vehicles, zip_code, money)],
            ),
        ],
    )


def _loss_history(rng: Random, money: _ReadMoney) -> list[dict[str, Any]]:
    carrier = rng.choice(_CARRIERS)[0]
    rows = []
    for year in range(2020, 2025):
        claims = rng.randint(0, 6)
        paid = claims * rng.randint(1_800, 14_000)
        reserved = rng.randint(2, 60) * 1_000 if claims and year >= 2023 else 0
        rows.append(
            {
                "policy_year": f"{year}-{year + 1}",
                "carrier": carrier,
                "premium": money(rng.randint(52, 140) * 1_000),
                "claim_count": claims,
                "paid": money(paid),
                "reserved": money(reserved),
                "incurred": money(paid + reserved),
            }
        )
    return rows


def _vehicles(rng: Random, count: int, zip_code: str, money: _ReadMoney) -> list[dict[str, Any]]:
    rows = []
    for number in range(1, count + 1):
        make, model, vin_prefix, weight, cost = rng.choice(_TRUCKS)
        rows.append(
            {
                "vehicle_number": number,
                "year": rng.randint(2011, 2025),
                "make": make,
                "model": model,
                "vin": vin_prefix + "".join(rng.choices(_VIN_LETTERS, k=14)),
                "gross_vehicle_weight": weight,
                "cost_new": money(cost + rng.randint(-40, 40) * 100),
                "garaging_zip": zip_code,
                "radius": rng.choice(("Local", "Intermediate", "Long distance", None)),
            }
        )
    return rows
